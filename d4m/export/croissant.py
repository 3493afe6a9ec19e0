"""Describe the tables of an export in Croissant, MLCommons' format for data sets."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from d4m.export.card import CITATION, configurations
from d4m.export.contents import Contents
from d4m.stages.distilled_dataset import write_json
from d4m.store.digest import digest_file

_PARQUET = "application/x-parquet"
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def write_croissant(folder: Path, contents: Contents, *, licence: str) -> None:
    """Write croissant.json, which names each parquet file with its digest and columns.

    Args:
        folder: of the export, with its tables.
        contents: of the data set.
        licence: the hub's name for the licence of the images.
    """
    tables = {
        name: sorted(folder.glob(pattern))
        for name, pattern in configurations(contents, "parquet").items()
    }
    provenance = contents.origin.reference and contents.origin.reference.provenance
    document = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": contents.name,
        "description": f"A distilled data set of {contents.shape[0]} images, made by D4M.",
        "license": licence,
        "version": "1.0.0",
        "datePublished": (provenance or {}).get("computed_at", ""),
        "citeAs": CITATION,
        "distribution": [
            part for name, paths in tables.items() for part in _distribution(folder, name, paths)
        ],
        "recordSet": [_record_set(name, paths[0]) for name, paths in tables.items()],
    }
    write_json(folder / "croissant.json", document)


def _distribution(folder: Path, name: str, paths: list[Path]) -> Iterator[dict[str, Any]]:
    """Yield every file of a table, and the set of them."""
    places = [path.relative_to(folder).as_posix() for path in paths]
    for path, place in zip(paths, places, strict=True):
        yield {
            "@type": "cr:FileObject",
            "@id": place,
            "name": place,
            "contentUrl": place,
            "contentSize": f"{path.stat().st_size} B",
            "encodingFormat": _PARQUET,
            "sha256": digest_file(path),
        }
    yield {
        "@type": "cr:FileSet",
        "@id": f"{name}-files",
        "containedIn": [{"@id": place} for place in places],
        "encodingFormat": _PARQUET,
        "includes": f"{places[0].partition('/')[0]}/*.parquet",
    }


def _record_set(name: str, path: Path) -> dict[str, Any]:
    fields = pq.read_schema(path)
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "field": [_field(name, each) for each in fields],
    }


def _field(table: str, column: pa.Field) -> dict[str, Any]:
    listed = pa.types.is_fixed_size_list(column.type)
    image = pa.types.is_struct(column.type)
    extract: dict[str, Any] = {"column": column.name}
    source: dict[str, Any] = {"fileSet": {"@id": f"{table}-files"}, "extract": extract}
    if image:
        source["transform"] = {"jsonPath": "bytes"}
    type_ = column.type.value_type if listed else column.type
    return {
        "@type": "cr:Field",
        "@id": f"{table}/{column.name}",
        "name": column.name,
        "dataType": "sc:ImageObject" if image else _data_type(type_),
        "source": source,
        **({"repeated": True} if listed else {}),
    }


def _data_type(type_: pa.DataType) -> str:
    if pa.types.is_boolean(type_):
        return "sc:Boolean"
    if pa.types.is_integer(type_):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(type_) else "sc:Text"
