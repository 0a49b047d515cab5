"""Commands of the command line that compile, demonstrate and measure."""
