"""Measures the bridge beside what people would do without it; ``python -m bench`` prints the ratios."""
