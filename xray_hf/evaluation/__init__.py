"""From a table of predictions to numbers and pictures; nothing here needs the model or torch."""
