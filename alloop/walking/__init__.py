"""Molecular dynamics with a trained model on its own: the engine of `alloop md`."""

from alloop.walking.walk import Progress as Progress
from alloop.walking.walk import Walk as Walk
