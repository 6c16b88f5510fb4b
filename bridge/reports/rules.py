"""The vendor's rules about reports, where this program keeps to each or tells it, and the test that shows it.

``docs/advice.md`` and ``report-bridge help report`` are printed from it; a test looks for the tests.
Source: the vendor's pages of its four report methods and of its errors; the shares from its older text.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Rule(NamedTuple):
    """One rule."""

    says: str
    """What the vendor says, in our words."""
    told: str
    """Where it is kept to, or told."""
    test: str
    """A test of that: file below ``tests`` and name."""


RULES: Final = (
    Rule("A report must arrive within 60 s of the end of the task.",
         "A later one is not sent: error -32010. The advice `often_late` comes when there are many.",
         "unit/test_reporter.py::test_less_than_two_seconds_left_is_too_late"),
    Rule("The minute begins when the worker has finished, not when the answer was fetched.",
         "`completedAt` takes the `endTime` of getTaskResult, and clocks that differ are corrected.",
         "unit/test_reporter.py::test_clock_skew_is_learnt_and_corrects_ages"),
    Rule("A task takes one report.",
         "The ledger answers for a task for 24 h: the same report is replayed, another is -32011.",
         "unit/test_reporter.py::test_repeated_report_is_replayed"),
    Rule("Only tasks that were solved without an error can be reported.",
         "Error 16 brings the hint `task_failed`. The advice `many_refused` comes when there are many.",
         "unit/test_hints.py::test_every_hint_is_reached"),
    Rule("The method must fit the kind of the task.",
         "With `taskType` a wrong method is not sent: error -32012 names the right one.",
         "unit/test_methods.py::test_fit"),
    Rule("Success means that the report was taken in, not that money comes back.",
         "A result says `accepted`; `stats` says what that means, and calls the money claims.",
         "unit/test_stats.py::test_plain_text_has_no_control_characters_and_no_bars"),
    Rule("Image reports: three moderators look, two must agree; then the full price comes back.",
         "The advice `rate_high` and `rate_jump` say so where images are meant.",
         "unit/test_advice.py::test_a_high_share_is_told_with_the_rule_of_its_subject"),
    Rule("Image reports: if fewer than half are confirmed all are ignored, and that record cannot be reset.",
         "The same advice says so. Report images only if the answer is wrong for sure.",
         "unit/test_advice.py::test_every_sentence_has_figures_a_rule_and_what_to_do"),
    Rule("Image reports: of English captchas only.",
         "With `languagePool` others are not sent: error -32013.",
         "unit/test_reporter.py::test_language_matters_for_images_only"),
    Rule("reCAPTCHA reports: accounts are compared; one whose share is far off is ignored for days.",
         "The advice `rate_high` comes when the share of the last 24 h is clearly above the usual.",
         "unit/test_advice.py::test_steady_accounts_are_left_alone"),
    Rule("reCAPTCHA reports: 8 to 12 % is usual; after a jump to all of them they are ignored for days.",
         "The advice `rate_jump` comes within 20 reports.",
         "unit/test_advice.py::test_a_jump_is_told_within_20_reports"),
    Rule("reCAPTCHA reports count from 100 reCAPTCHA tasks in 24 h on.",
         "The advice `few_tasks` comes below, `tasks_unknown` while nobody tells how many there are.",
         "unit/test_advice.py::test_an_account_with_80_tasks_a_day_hears_of_it_before_its_tenth_report"),
    Rule("A wrong token keeps its worker away from the account, a right one brings it to the front for an "
         "hour; it shows from 10 tasks a minute on.",
         "The descriptions of the methods say so. Praise never counts as a complaint.",
         "unit/test_advice.py::test_a_report_counts_as_what_the_upstream_saw"),
    Rule("Enough complaints filter out every worker; then solving fails with error 54.",
         "`help 54` says so, and the advice `rate_jump` comes before.",
         "contract/test_error_mapping.py::test_every_refusal_is_the_vendors"),
    Rule("Praise for plain reCAPTCHA V2 is taken, then ignored.",
         "The report is sent, and its answer has the warning `ignored_by_vendor`.",
         "unit/test_methods.py::test_warnings_come_with_types_and_methods"),
    Rule("hCaptcha tasks are withdrawn; a refund for them was never certain.",
         "The report is sent, and its answer has the warning `withdrawn_by_vendor`.",
         "unit/test_methods.py::test_warnings_come_with_types_and_methods"),
)  # fmt: skip
"""All of them."""
