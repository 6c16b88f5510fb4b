"""The way to the upstream: one HTTP attempt inside the seconds it is given."""
