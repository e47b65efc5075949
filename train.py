"""Train a chest X-ray classifier: the same as `xray-hf train`, as a script for `accelerate launch`.

python train.py --preset paper --data-dir DATA --out runs/xray-resnet18
python train.py --source coronahack=DATA --source folder:clinic=DATA2 --hold-out clinic
accelerate launch --config_file configs/accelerate/multi_gpu.yaml train.py --data-dir DATA
python train.py --help
"""

import sys

from xray_hf.cli import main
from xray_hf.errors import exit_on_error

if __name__ == "__main__":
    sys.exit(exit_on_error(lambda: main(["train", *sys.argv[1:]])))
