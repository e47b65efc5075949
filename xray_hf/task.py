"""The classes, the splits and their order, the same everywhere: data, heads, tables, figures, cards."""

LABELS = ("Normal", "Pneumonia", "COVID-19")
NORMAL, PNEUMONIA, COVID19 = range(3)

SPLITS = ("train", "validation", "test")  # ours
OFFICIAL_SPLITS = ("TRAIN", "TEST")  # the data set's own, the CSV's Dataset_type

SYNTHETIC_MARK = "SYNTHETIC patients: "  # in front of every title and table made from the atlas
