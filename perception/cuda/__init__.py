"""The GPU: its primary context, and one small file per resource.

PyCUDA does the work. cuda-python's bindings add what it lacks, on the same handles in the same context: graphs, stream
priorities, and events that a graph records. Without them work is enqueued instead, with the same results.

Every resource is closed by whoever made it, in reverse order, with the context current; nothing is left to `atexit`.
"""

from perception.cuda.driver import Driver, load_driver
from perception.cuda.event import Event
from perception.cuda.gpu import Gpu
from perception.cuda.graph import Graph
from perception.cuda.memory import DeviceMemory, Exchange, HostMemory
from perception.cuda.module import Kernel, Launch, Module, blocks
from perception.cuda.stream import Stream
from perception.cuda.workspace import Workspace

__all__ = [
    "DeviceMemory",
    "Driver",
    "Event",
    "Exchange",
    "Gpu",
    "Graph",
    "HostMemory",
    "Kernel",
    "Launch",
    "Module",
    "Stream",
    "Workspace",
    "blocks",
    "load_driver",
]
