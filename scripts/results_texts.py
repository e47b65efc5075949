"""What docs/results.md says between its tables."""

TEXTS = {
    "opening": """\
# Results

**What this data can teach is little, and these models are not for patients.** Normal and Pneumonia are
children of one hospital, COVID-19 are 58 images, mostly of adults, collected from the web: a model that
tells COVID-19 from the rest can do so by telling the sources apart. X-rays from elsewhere and the
controls below show how far that goes.""",
    "how to read": """\
What can be learnt is how a split that copies images hides this, and how to look for it. Brackets hold
95 % intervals, bootstrapped over patients; a share of 0 or 100 % has the exact interval of so many patients.
± is the standard deviation over seeds, all with the same split and the same test patients.
[Limitations](limitations.md) has the rest.""",
    "overview": """\
`make reproduce DATA=…`: {starts} (the paper started ResNet18 from ImageNet weights); {where}. Nothing
was chosen by test rows. Official test is the 624 images that the literature reports, without COVID-19.""",
    "better": """\
The paper says that ResNet18 is 2.5 % better: {right[0]} against {right[1]} of {total} images. Its
predictions were not published; an unpaired exact test gives p = {p_value:.2f}. Below, ours on the same
test images, ResNet18 minus the CNN in points: interval over patients, and McNemar's exact test, which
takes images for independent though some patients have several, so that its p is rather too small.""",
    "leak": """\
The same recipe, the paper's, under its own protocol and under the honest one. Leak: the share of the
validation rows whose very image, or whose patient, is also in training (`xray-hf splits`). Upsampling
is part of the paper's split; under the honest one its recipe has nothing that balances the classes, and
an epoch has half as many steps. So the leak is shown within the paper's runs too: by the validation rows
of which neither file nor patient is in training (none of COVID-19).""",
    "gap": """\
Within the paper's own runs the rows that do not leak have {less} points less than all validation rows. Its
99.9 % was not reached from random weights, so how much of it was leak cannot be said. The gaps of the two
protocols do not compare: without upsampling the recipe learns something else. What stays without the leak
comes from the official test set, which differs from the training set that it comes with, and from a recipe
that does not bear the difference: on the same split and test ours has gaps of {ours}. Validation rows alone
cannot show it.""",
    "confidence": """\
Temperature, the threshold of `unsure`, for {target} wrong answers, and the operating points are fitted on
validation rows (`xray-hf calibrate`). ECE: mean distance between probability and share right. Brier: squared
error summed over the classes, 0 best, 2 worst. Answered: not `unsure`. The operating points do not hold on
test: its healthy children are called Pneumonia far more often than those of validation.""",
    "elsewhere": """\
`xray-hf evaluate BUNDLE --external --data-dir DIR`, used for nothing else, but for one thing: how many of
them the detector of foreign input refuses was seen when it was mended. {what} Normal and Pneumonia are
adults of NIH ChestX-ray14, with labels text-mined from reports; COVID-19 comes from a collection of the web
that training does not know. An AUROC below 0.5 means that the order is the wrong way round.""",
    "sure elsewhere": """\
Nor do the models know that they do not know. Answered: by the threshold of `unsure` alone. The last two
columns are of the whole engine, which refuses foreign input as well and needs the files.""",
    "refused": """\
The table counts what the network says of every row. The engine refuses some before that, as no frontal
chest X-ray: of {label}{lateral} {refused}.""",
    "controls": """\
The shipped models on test images that lack what a diagnosis needs (`xray-hf report`): lungs blacked
out, only the outer frame, only low frequencies, only the histogram. What is found there, beyond what is
called so anyway, is found by something else, as far as the view hides the disease: a blur leaves large
consolidations, the black rectangle some lung at the sides. A network that never saw a black rectangle may
also just be confused.""",
    "trained on views": """\
`train.py --view VIEW`, tested on the same view, a small run each (112 pixels, 8 epochs, one seed): what
the data set gives away without a lung. Nothing is augmented, which would take away what the view has
left; so the whole image, trained alike, is far below the shipped model too. The order of the rows means
nothing; that every view without lungs tells COVID-19 from the rest does.""",
    "subgroups": """\
Of the children neither sex nor age is recorded. View positions are known of COVID-19 alone. Near: another
row of test shows the same picture; no picture of test stands in training.""",
    "worth": """\
**Next to nothing as a sign of the disease.**""",
    "of border": """\
A CNN trained on the outer frame of the pictures alone finds {sensitivity:.0%} of the {label} images in
test, with an AUROC of {auroc:.3f}.""",
    "of web": """\
Of the web's other pneumonias, labelled Pneumonia, these are called {label}: {called}.""",
    "doubts": """\
A row is taken for a class if that is at least as likely as it is, on average, in the rows so labelled
(Northcutt et al. 2021, equation 1); where this is not its label, the label is in doubt. The network may be
wrong as well, and dropping what it doubts flatters it: the last column shows how much hangs on these rows
and is no bound. Wrong labels that the network agrees with stay in.
`xray-hf report --sheets DIR` draws the labels believed least, for a radiologist to look at.""",
    "source": """\
How well these few can be told from the children's pneumonias by logistic regression, out of fold, patients
kept together. The embedding is of a network that was trained on them, and an interval drawn from so few
patients shows little:""",
    "heatmaps": """\
Share of the heatmaps' mass in a rectangle around the lungs and in the outer frame, by the class called:""",
    "epochs": """\
Protocol `paper`, seed 0. Train accuracy is measured while the weights change, the rest in the
training's number format.""",
    "ablations": """\
`scripts/ablate.py`: one change at a time against the recipe that the search began with, at 112 pixels
and 8 epochs, from random weights; mean ± standard deviation over folds, each with its own seed and
validation rows and all with the same test rows, which take no part. Validation rows are of the same
source as the training rows and hardly tell recipes apart. So every network is also asked about
validation images made darker, brighter, flatter, equalised, softer, noisier, closer and farther than
they are (`stressed`, mean of the eight); choices follow that column, and `gain` is its difference from
the beginning, fold by fold. Augmentation that resembles a stress has an advantage in it. Choices were
made on fold 0, of ResNet18 only those that decided; the other folds came later and say how far to trust
them. Weight decay, warm-up, schedule and label smoothing stayed as they began, since nothing told them
apart; the mean with the mirror image is not used, which gained nothing. 224 pixels and the preset's 12 and
20 epochs follow from the time of a run and were not compared; an auxiliary head for bacteria and virus was
not tried. Minutes are of a machine that had other work as well, or was halted.""",
    "speed": """\
`make bench-train DATA=…`: images per second in training, medians of interleaved rounds with their
spread. `ours` is the loop of train.py; `pure` the same step on one constant batch, the ceiling; `plain`
a loop over JPEG files and torchvision transforms in float32; `hf` transformers' Trainer on the
`datasets` object.""",
}
