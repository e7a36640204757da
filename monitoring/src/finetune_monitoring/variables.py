"""Template variables and annotations of the dashboards."""

from __future__ import annotations

from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.dashboard import AnnotationQuery, DataSourceRef, VariableHide, VariableRefresh, VariableSort

DATASOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
"""Every panel asks the data source that is chosen at the top."""


def datasource() -> Builder[models.VariableModel]:
    """The Prometheus to ask."""
    return build.DatasourceVariable("datasource").label("Data source").type("prometheus")


def values(name: str, label: str, query: str, *, many: bool = False) -> Builder[models.VariableModel]:
    """A variable whose choices are values of a label; ``many``: several at once, or all."""
    variable = (
        build.QueryVariable(name)
        .label(label)
        .query({"query": query, "refId": name})
        .datasource(DATASOURCE)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_CASE_INSENSITIVE_ASC)
    )
    if not many:
        return variable
    everything = models.VariableOption(selected=True, text="All", value="$__all")
    return variable.multi(multi=True).include_all(include_all=True).all_value(".+").current(everything)


def number(name: str, label: str, default: str, description: str) -> Builder[models.VariableModel]:
    """A number to type in."""
    return build.TextBoxVariable(name).label(label).description(description).default_value(default).hide(VariableHide.DONT_HIDE)


class PrometheusAnnotation(AnnotationQuery):
    """An annotation query with the fields of Prometheus' own editor, which the SDK's type lacks."""

    def __init__(self, *, title: str, text: str, **fields: Any) -> None:
        super().__init__(**fields)
        self.title_format, self.text_format = title, text

    def to_json(self) -> dict[str, object]:
        """What Grafana reads."""
        return {**super().to_json(), "titleFormat": self.title_format, "textFormat": self.text_format, "step": "15s"}


class Annotation(Builder[AnnotationQuery]):
    """Marks moments at which a query has values."""

    def __init__(self, name: str, expr: str, *, colour: str, title: str, text: str) -> None:
        self._query = PrometheusAnnotation(
            title=title, text=text, name=name, datasource=DATASOURCE, enable=True, icon_color=colour, expr=expr
        )

    def build(self) -> AnnotationQuery:
        """The annotation."""
        return self._query
