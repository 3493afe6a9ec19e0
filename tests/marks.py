"""Marks that tests of several rooms share."""

import pytest

# diffusers 0.42 passes a tensor to `np.array` in a way that numpy 2 deprecates.
COPY_KEYWORD = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
