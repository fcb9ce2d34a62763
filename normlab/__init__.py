"""normlab: what does a normalization layer do to a network, and how sure are we?"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("normlab")
except PackageNotFoundError:  # a clone on the path, not installed
    __version__ = "0+clone"
