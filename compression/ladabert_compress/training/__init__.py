"""The one loop, what it trains (a teacher or a student), a whole run; may import ``teacher`` and below."""
