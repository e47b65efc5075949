"""Everything for the Hub: cards, data set, Space, and their publication."""
