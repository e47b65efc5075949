"""What goes to the Hub: cards, data set, Space, and how they get there."""
