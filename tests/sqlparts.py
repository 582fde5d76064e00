# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What a piece of SQL in the engine's sources is made of, followed through names, parameters and calls to the parts that nobody quoted."""

from __future__ import annotations

import ast
import re
import typing as t
from pathlib import Path

Defined = t.Union[ast.FunctionDef, ast.AsyncFunctionDef]
Bound = t.Dict[str, t.Tuple[ast.expr, "Bound"]]  # type: ignore[misc]
NUMBERS = re.compile(r"(int|float|bool)( \| None)?")
QUOTED_THERE = re.compile(r"quote_(ident|literal)\(|pg_get_\w+\(|\bformat\(|format_type\(|extcondition|rolconfig|::regclass::text")
"""In a query: PostgreSQL's own functions that quote, the condition by which an extension wants its rows dumped, and settings of a role,
where lists are kept quoted."""
CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]*")
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Module)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)


class Sources:
    """The files below ``folder``.

    :param quoting: functions and methods whose result is quoted, or a number, whatever they are given.
    :param passing: those whose result is made of what they are given and called on.
    :param fields: attributes and keys that hold SQL or quoted names.
    :param asking: methods that run SQL; their rows are quoted where the query quotes.
    """

    def __init__(
        self, folder: Path, *, quoting: t.Collection[str], passing: t.Collection[str], fields: t.Collection[str], asking: t.Collection[str]
    ) -> None:
        self.quoting, self.passing, self.fields, self.asking = quoting, passing, fields, asking
        self.trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.py"))}
        self._above: dict[ast.AST, ast.AST] = {}
        self._functions: dict[str, list[Defined]] = {}
        self._calls: dict[str, list[ast.Call]] = {}
        for tree in self.trees.values():
            for node in ast.walk(tree):
                self._above.update((child, node) for child in ast.iter_child_nodes(node))
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    self._functions.setdefault(node.name, []).append(node)
                elif isinstance(node, ast.Call):
                    self._calls.setdefault(called(node), []).append(node)
        kinds = [(node.target.id, ast.unparse(node.annotation)) for tree in self.trees.values() for node in declared(tree)]
        self._numbers = {name for name, kind in kinds if NUMBERS.fullmatch(kind)} - {n for n, kind in kinds if not NUMBERS.fullmatch(kind)}
        self._open: set[ast.AST] = set()
        self._known: dict[t.Any, set[str]] = {}

    def unquoted(self, node: ast.AST, bound: Bound | None = None) -> set[str]:
        """The parts of ``node`` of which nobody knows that they are quoted, as they are written."""
        bound = bound or {}
        key = (node, *sorted((name, id(value)) for name, (value, dummy) in bound.items()))
        if node in self._open:  # a name that is made of itself: what else it is made of is found where it was begun
            return set()
        if key not in self._known:
            self._open.add(node)
            self._known[key] = self._parts(node, bound)
            self._open.discard(node)
        return self._known[key]

    def _all(self, nodes: t.Iterable[ast.AST], bound: Bound) -> set[str]:
        return set().union(*(self.unquoted(node, bound) for node in nodes))

    def _parts(self, node: ast.AST, bound: Bound) -> set[str]:
        if isinstance(node, (ast.Constant, ast.Compare)):
            return set()
        if isinstance(node, ast.Name):
            return self._name(node, bound)
        if isinstance(node, ast.Attribute):
            known = node.attr in self.fields or node.attr in self._numbers or CONSTANT.fullmatch(node.attr)
            return set() if known else {ast.unparse(node)}
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            if node.slice.value in self.fields:
                return set()
            if isinstance(node.value, ast.Call) and isinstance(node.slice.value, int):
                return self._call(node.value, bound, node.slice.value)
        if isinstance(node, ast.Call):
            return self._call(node, bound)
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp)):
            return self.unquoted(node.elt, bound)
        if isinstance(node, ast.DictComp):
            return self._all([node.key, node.value], bound)
        if isinstance(node, ast.IfExp):
            return self._all([node.body, node.orelse], bound)
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            made = list(assigned(self._function(node), node.value.id)) if node in self._above else []
            if made and all(isinstance(each, ast.DictComp) for each in made):  # a key decides only what is taken
                return self._all([each.value for each in made if isinstance(each, ast.DictComp)], bound)
        if isinstance(node, (ast.Subscript, ast.Starred, ast.Await, ast.FormattedValue, ast.NamedExpr)):
            return self.unquoted(node.value, bound)
        if isinstance(node, (ast.JoinedStr, ast.BinOp, ast.BoolOp, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.UnaryOp)):
            return self._all((child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)), bound)
        return {ast.unparse(node)}

    def _call(self, node: ast.Call, bound: Bound, position: int | None = None) -> set[str]:
        """What a call gives; of a tuple the element at ``position``, where that is known."""
        name = called(node)
        if name in self.quoting:
            return set()
        if name in self._functions and position is not None:
            return self._result(node, bound, position)
        if name in self.passing:
            receiver = [node.func.value] if isinstance(node.func, ast.Attribute) and not self._is_module(node.func.value) else []
            given = node.args[1:] if name == "get" else node.args  # a key decides only what is taken
            return self._all([*receiver, *given, *(keyword.value for keyword in node.keywords)], bound)
        if name in ("fetchall", "fetchone") and isinstance(node.func, ast.Attribute):
            return self.unquoted(node.func.value, bound)
        if name in self.asking and node.args:
            return set() if QUOTED_THERE.search(self._text(inner(node.args[0]), bound)) else {ast.unparse(node)}
        if name not in self._functions:
            return {ast.unparse(node)}
        return self._result(node, bound, None)

    def _result(self, node: ast.Call, bound: Bound, position: int | None) -> set[str]:
        found: set[str] = set()
        for function in self._functions[called(node)]:
            if self._meant(function, node):
                given = self._given(function, node, bound)
                results = [each.value for each in ast.walk(function) if isinstance(each, (ast.Return, ast.Yield)) and each.value]
                tuples = [each for each in results if isinstance(each, ast.Tuple)]
                if position is not None and len(tuples) == len(results):
                    results = [each.elts[position] for each in tuples]
                found |= self._all(results, given)
        return found

    def _text(self, node: ast.expr, bound: Bound, depth: int = 3) -> str:
        """How a query is written, with what its names stand for."""
        text = ast.unparse(node)
        for name in [each for each in ast.walk(node) if isinstance(each, ast.Name)] if depth else []:
            if name.id in bound:
                text += self._text(*bound[name.id], depth - 1)
            scope: ast.AST = name
            while not isinstance(scope, ast.Module):
                scope = self._above[scope]
                if isinstance(scope, SCOPES):
                    text += "".join(self._text(value, bound, depth - 1) for value in assigned(scope, name.id))
        return text

    def _name(self, node: ast.Name, bound: Bound) -> set[str]:
        if CONSTANT.fullmatch(node.id) or node.id in ("t", "dict", "str"):
            return set()
        scope: ast.AST = node
        while not isinstance(scope, ast.Module):
            scope = self._above[scope]
            if isinstance(scope, COMPREHENSIONS):
                sources = [one for each in scope.generators for one in drawn(each.target, each.iter, node.id)]
            elif isinstance(scope, SCOPES):
                sources = list(assigned(scope, node.id))
                if not isinstance(scope, ast.Module) and not sources and node.id in parameters(scope):
                    return self._parameter(scope, node.id, bound)
                if not isinstance(scope, ast.Module) and node.id in parameters(scope):
                    return self._parameter(scope, node.id, bound) | self._all(sources, bound)
            else:
                continue
            if sources:
                return self._all(sources, bound)
        return {node.id}

    def _parameter(self, function: Defined, name: str, bound: Bound) -> set[str]:
        argument = parameters(function)[name]
        if argument.annotation is not None and NUMBERS.fullmatch(ast.unparse(argument.annotation)):
            return set()
        if name in bound:
            return self.unquoted(*bound[name])
        calls = [call for call in self._calls.get(function.name, []) if self._meant(function, call)]
        if not calls:
            return {f"{function.name}({name})"}
        found: set[str] = set()
        for call in calls:
            given = self._given(function, call, {})
            found |= self.unquoted(*given[name]) if name in given else set()
        return found

    def _given(self, function: Defined, call: ast.Call, bound: Bound) -> Bound:
        """What ``call`` gives to the parameters of ``function``, or their defaults."""
        args = function.args
        named = [argument.arg for argument in [*args.posonlyargs, *args.args]]
        defaults = dict(zip(reversed(named), reversed(args.defaults), strict=False))
        defaults.update({one.arg: value for one, value in zip(args.kwonlyargs, args.kw_defaults, strict=False) if value is not None})
        if named[:1] in (["self"], ["cls"]):
            named = named[1:]
        given: Bound = {name: (value, {}) for name, value in defaults.items()}
        given.update({name: (value, bound) for name, value in zip(named, call.args, strict=False)})
        given.update({keyword.arg: (keyword.value, bound) for keyword in call.keywords if keyword.arg})
        return given

    def _meant(self, function: Defined, call: ast.Call) -> bool:
        """May ``call`` be one of ``function``: a method by an attribute, a function by its name or that of its module?"""
        if function.name.startswith("_") and self._file(function) is not self._file(call):
            return False
        if isinstance(self._above[function], ast.ClassDef):
            return isinstance(call.func, ast.Attribute)
        return isinstance(call.func, ast.Name) or (isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name))

    def _function(self, node: ast.AST) -> ast.AST:
        """The function whose body ``node`` is in, of nested ones the outermost."""
        found = node
        while not isinstance(node, ast.Module):
            node = self._above[node]
            found = node if isinstance(node, SCOPES[:2]) else found
        return found

    def _file(self, node: ast.AST) -> ast.AST:
        while node in self._above:
            node = self._above[node]
        return node

    def _is_module(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Name) and node.id in ("t", "re", "itertools")


def inner(node: ast.expr) -> ast.expr:
    """``node`` without ``.encode()`` and ``cast``."""
    if isinstance(node, ast.Call) and called(node) == "encode" and isinstance(node.func, ast.Attribute):
        return inner(node.func.value)
    return inner(node.args[1]) if isinstance(node, ast.Call) and called(node) == "cast" else node


def called(node: ast.Call) -> str:
    """The last name of what is called."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""


def parameters(function: Defined) -> dict[str, ast.arg]:
    """By name."""
    args = function.args
    every = [*args.posonlyargs, *args.args, *args.kwonlyargs, *filter(None, [args.vararg, args.kwarg])]
    return {one.arg: one for one in every}


def names_in(target: ast.AST) -> set[str]:
    """The names that an assignment to ``target`` sets."""
    return {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}


def within(scope: ast.AST) -> t.Iterator[ast.AST]:
    """The nodes of a scope without those of functions in it."""
    for child in ast.iter_child_nodes(scope):
        yield child
        if not isinstance(child, SCOPES):
            yield from within(child)


def assigned(scope: ast.AST, name: str) -> t.Iterator[ast.expr]:
    """All that ``name`` is set to, or gets appended, in ``scope``."""
    for node in within(scope):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from matching(target, node.value, name)
        elif isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.NamedExpr)) and node.value is not None:
            yield from matching(node.target, node.value, name)
        elif isinstance(node, (ast.For, ast.AsyncFor)):
            yield from drawn(node.target, node.iter, name)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            yield from (item.context_expr for item in node.items if item.optional_vars and name in names_in(item.optional_vars))
        elif isinstance(node, ast.Call) and called(node) in ("append", "extend", "add") and isinstance(node.func, ast.Attribute):
            yield from node.args if isinstance(node.func.value, ast.Name) and node.func.value.id == name else ()


def drawn(target: ast.AST, source: ast.expr, name: str) -> t.Iterator[ast.expr]:
    """What ``name`` is drawn from in ``for target in source``."""
    if isinstance(target, ast.Tuple) and isinstance(source, ast.Call) and called(source) in ("zip", "enumerate"):
        sources = [ast.Constant(0), *source.args] if called(source) == "enumerate" else source.args
        for one, two in zip(target.elts, sources, strict=False):
            yield from drawn(one, two, name)
    elif isinstance(target, ast.Tuple) and isinstance(source, (ast.Tuple, ast.List)) and all(isinstance(e, ast.Tuple) for e in source.elts):
        for element in source.elts:
            yield from matching(target, element, name)
    elif name in names_in(target):
        yield source


def declared(tree: ast.AST) -> t.Iterator[t.Any]:
    """The fields that classes declare."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from (each for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name))


def matching(target: ast.AST, value: ast.expr, name: str) -> t.Iterator[ast.expr]:
    """The part of ``value`` that ``name`` gets from ``target = value``."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        for one, two in zip(target.elts, value.elts, strict=False):
            yield from matching(one, two, name)
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Call):
        yield from (ast.Subscript(value, ast.Constant(at)) for at, one in enumerate(target.elts) if name in names_in(one))
    elif isinstance(target, ast.Subscript):
        if name in names_in(target.value):
            yield value
    elif name in names_in(target):
        yield value
