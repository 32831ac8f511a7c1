"""The plugin as TensorBoard sees it: a name, a tab, routes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensorboard import errors, plugin_util
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from deadunits_tb.errors import DeadUnitsError, InvalidArgumentError, UnknownNameError
from deadunits_tb.metadata import DISPLAY_NAME, PLUGIN_NAME
from deadunits_tb.serving.histories import Histories
from deadunits_tb.serving.parameters import Query
from deadunits_tb.serving.responses import respond
from deadunits_tb.serving.routes import ROUTES, Route
from deadunits_tb.serving.static import ENTRY, static_files

_METHODS = ("GET", "HEAD")


class DeadUnitsPlugin(base_plugin.TBPlugin):  # type: ignore[misc]  # TensorBoard has no types
    """Serves the tab and its data.

    Args:
        context: TensorBoard's ``TBContext``; only its data provider is used.
    """

    plugin_name = PLUGIN_NAME

    def __init__(self, context: Any) -> None:
        self._histories = Histories(context.data_provider)

    def get_plugin_apps(self) -> dict[str, Any]:
        """Route to WSGI application: the route table, and the files of the tab that exist now."""
        files = {path: _application(file) for path, file in static_files().items()}
        return files | {route.path: _application(self._answer(route)) for route in ROUTES}

    def is_active(self) -> bool:
        """False, at no cost: TensorBoard asks only where its own listing shows no data of ours."""
        return False

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """How the tab is shown."""
        return base_plugin.FrontendMetadata(es_module_path=ENTRY, tab_name=DISPLAY_NAME)

    def data_plugin_names(self) -> tuple[str, ...]:
        """Whose data make the tab active."""
        return (PLUGIN_NAME,)

    def _answer(self, route: Route) -> Callable[[Any], Any]:
        def answer(request: Any) -> Any:
            arguments = {name: request.args[name] for name in route.parameters if name in request.args}
            context, experiment = plugin_util.context(request.environ), plugin_util.experiment_id(request.environ)
            return respond(request, route.handler(self._histories, Query(arguments, context, experiment)))

        return answer


class _MethodNotAllowed(errors.PublicError):  # type: ignore[misc]
    http_code = 405

    def __init__(self, method: str) -> None:
        super().__init__(f"Method not allowed: {method}; these routes are read with GET")
        self.headers.append(("Allow", ", ".join(_METHODS)))


class _Unreadable(errors.PublicError):  # type: ignore[misc]
    http_code = 500


def _application(answer: Callable[[Any], Any]) -> Any:
    """Make a WSGI application whose errors are TensorBoard's, which become 4xx with their sentence."""

    @wrappers.Request.application
    def application(request: Any) -> Any:
        if request.method not in _METHODS:
            raise _MethodNotAllowed(request.method)
        try:
            return answer(request)
        except UnknownNameError as error:
            raise errors.NotFoundError(error) from error
        except InvalidArgumentError as error:
            raise errors.InvalidArgumentError(error) from error
        except DeadUnitsError as error:
            raise _Unreadable(str(error)) from error

    return application
