"""The task ledger: what is written, what is asked, what is forgotten."""

from __future__ import annotations

from .ledger import NO_RESULTS as NO_RESULTS
from .ledger import Ledger as Ledger
from .model import Attempt as Attempt
from .model import NameSummary as NameSummary
from .model import Node as Node
from .model import Page as Page
from .model import Percentiles as Percentiles
from .model import Summary as Summary
from .model import Task as Task
from .model import Undecodable as Undecodable
from .model import Workflow as Workflow
