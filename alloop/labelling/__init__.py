"""Many frames at one level, without a campaign: the engine of `alloop label`."""

from alloop.labelling.job import Job as Job
from alloop.labelling.many import Progress as Progress
from alloop.labelling.many import label_frames as label_frames
