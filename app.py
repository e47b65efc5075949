"""Serve the demo: the same as `xray-hf demo`, as the script that a Space starts.

python app.py
python app.py --bundle runs/paper/xray-resnet18/bundle --bundle runs/paper/xray-cnn/bundle --port 7861
"""

import sys

from xray_hf.cli import main
from xray_hf.errors import exit_on_error

if __name__ == "__main__":
    sys.exit(exit_on_error(lambda: main(["demo", *sys.argv[1:]])))
