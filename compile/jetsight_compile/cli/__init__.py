"""Commands that compile, demonstrate and measure; each imports heavy libraries when it runs."""
