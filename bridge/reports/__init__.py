"""What a report is: verdicts, windows, pauses, hints and the steps of one report.

No socket, file, thread, clock or environment in here; time and randomness are handed in.
"""
