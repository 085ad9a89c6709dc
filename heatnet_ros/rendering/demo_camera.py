"""The camera that the demo, the films to measure on and the sample bag are drawn with."""

import numpy as np

SIZE_WH = (640, 480)
# a D435's colour camera at 640x480
K = np.array([[615.3, 0.0, 321.2], [0.0, 615.6, 238.4], [0.0, 0.0, 1.0]])
