"""Training on given labels, without a campaign: the engine of `alloop train`."""

from alloop.teaching.job import Job as Job
from alloop.teaching.job import Taught as Taught
from alloop.teaching.prepare import opened as opened
from alloop.teaching.prepare import prepare as prepare
from alloop.teaching.prepare import train as train
