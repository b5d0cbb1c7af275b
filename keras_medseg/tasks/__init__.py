"""Tasks: how a data set is sampled and predicted. `task_of` gives the task of a recipe."""

from collections.abc import Mapping
from typing import Any

from keras_medseg import recipe as recipes
from keras_medseg.tasks.base import Task
from keras_medseg.tasks.images import ImageTask
from keras_medseg.tasks.patches import PatchTask
from keras_medseg.tasks.segments import SegmentTask
from keras_medseg.tasks.slices import SliceTask

TASKS: dict[type, type[Task]] = {
    recipes.Slices: SliceTask,
    recipes.Patches: PatchTask,
    recipes.Segments: SegmentTask,
    recipes.Images: ImageTask,
}


def task_of(recipe: recipes.Recipe, fitted: Mapping[str, Any] | None = None) -> Task:
    """The task that the data section of a recipe describes.

    Args:
        recipe: any recipe.
        fitted: what `Task.fit` measured earlier.

    Raises:
        ValueError: as `Task`.
    """
    return TASKS[type(recipe.data)](recipe, fitted)
