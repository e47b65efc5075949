"""The classes and their order, the same everywhere: data, heads, tables, figures, cards."""

LABELS = ("Normal", "Pneumonia", "COVID-19")
NORMAL, PNEUMONIA, COVID19 = range(3)
