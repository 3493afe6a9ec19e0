"""Prompts: unknown classes, empty texts, and texts that a generator cuts."""

from collections.abc import Iterator, Sequence

from d4m.generators.base import Generator, PromptFinding
from d4m.recipe.problems import Problem, did_you_mean
from d4m.recipe.recipe import Recipe
from d4m.sources.class_table import ClassTable, own_prompts

_MOST_NAMED = 20


def check_prompts(
    recipe: Recipe, table: ClassTable, generator: Generator
) -> tuple[list[Problem], list[str]]:
    """Return problems of a recipe's prompts, and warnings for people.

    Args:
        recipe: words the prompts.
        table: the classes.
        generator: says which texts it does not read whole.
    """
    problems = list(_per_class_problems(recipe, table))
    settings = recipe.settings.prompts
    keys = own_prompts(table.names, tuple(settings.per_class))
    own = {key: settings.per_class[key] for key in keys.values()}
    settings = settings.model_copy(update={"per_class": own})
    prompts = {id_: table.prompt(id_, settings) for id_ in range(len(table))}
    found = generator.examine_prompts(dict.fromkeys(prompts.values()), table.names)
    of_template, warnings = list[tuple[str, PromptFinding]](), list[str]()
    for class_id, prompt in prompts.items():
        finding, name = found.get(prompt), table.names[class_id]
        if finding is None:
            continue
        whose = f"class {class_id} ('{name}')"
        if finding.read is not None and finding.read >= table.name_end(class_id, settings):
            warnings.append(f"the prompt of {whose}: {finding.reason}")
        elif key := keys.get(name):
            problems.append(Problem(("prompts", "per_class", key), _refuse([(whose, finding)])))
        else:
            of_template.append((whose, finding))
    if of_template:
        problems.append(Problem(("prompts", "template"), _refuse(of_template)))
    return problems, [*warnings[:_MOST_NAMED], *_count_more(len(warnings) - _MOST_NAMED)]


def _per_class_problems(recipe: Recipe, table: ClassTable) -> Iterator[Problem]:
    per_class = recipe.settings.prompts.per_class
    known = set(own_prompts(table.names, tuple(per_class)).values())
    for name, prompt in per_class.items():
        if name not in known:
            shown = ", ".join(table.names[:_MOST_NAMED])
            more = " ..." if len(table) > _MOST_NAMED else ""
            hint = did_you_mean(name, table.names)
            text = f"the data set has no such class{hint}; its classes are {shown}{more}"
            yield Problem(("prompts", "per_class", name), text)
        elif not prompt.strip():
            text = f"wanted a text, found {prompt!r}; leave it out to use `prompts.template`"
            yield Problem(("prompts", "per_class", name), text)


def _refuse(found: Sequence[tuple[str, PromptFinding]]) -> str:
    """Describe prompts of one key that cannot be used: the first cut, or all that name no class."""
    whose, first = found[0]
    if first.read is None:
        named = ", ".join(finding.reason for _, finding in found[:_MOST_NAMED])
        more = len(found) - _MOST_NAMED
        return f"{first.wanted}; found {named}" + (f" and {more} more" if more > 0 else "")
    more = f" ({len(found)} classes)" if len(found) > 1 else ""
    return f"cut before the end of the class name; {whose}: {first.reason}; shorten it{more}"


def _count_more(count: int) -> list[str]:
    return [f"and {count} more prompts are cut after the class name"] if count > 0 else []
