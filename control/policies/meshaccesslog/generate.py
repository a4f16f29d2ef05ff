"""MeshAccessLog as Envoy's file access loggers, with Kuma's placeholders filled in."""

from __future__ import annotations

from dataclasses import dataclass

from control.policies.meshaccesslog.schema import Backend, Conf, FileBackend
from envoy_ext.render import Config

_FILE = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"

# The format unless a policy gives one: enough to find a slow or rejected call, without headers that could hold
# secrets.
_HTTP_FORMAT = (
    '[%START_TIME%] %KUMA_MESH% "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% '
    "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% "
    '"%KUMA_SOURCE_SERVICE%" "%KUMA_DESTINATION_SERVICE%" "%KUMA_SOURCE_ADDRESS_WITHOUT_PORT%" "%UPSTREAM_HOST%"\n'
)
_TCP_FORMAT = (
    "[%START_TIME%] %KUMA_MESH% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% "
    '"%KUMA_SOURCE_SERVICE%" "%KUMA_DESTINATION_SERVICE%" "%KUMA_SOURCE_ADDRESS_WITHOUT_PORT%" "%UPSTREAM_HOST%"\n'
)


@dataclass(frozen=True)
class Traffic:
    """The values of Kuma's placeholders for one listener."""

    mesh: str
    zone: str
    source: str
    destination: str
    direction: str
    address: str
    workload: str = ""

    def fill(self, text: str) -> str:
        values = {
            "%KUMA_MESH%": self.mesh,
            "%KUMA_ZONE%": self.zone,
            "%KUMA_WORKLOAD%": self.workload,
            "%KUMA_SOURCE_SERVICE%": self.source,
            "%KUMA_DESTINATION_SERVICE%": self.destination,
            "%KUMA_TRAFFIC_DIRECTION%": self.direction,
            "%KUMA_SOURCE_ADDRESS%": "%DOWNSTREAM_REMOTE_ADDRESS%"
            if self.direction == "INBOUND"
            else self.address + ":0",
            "%KUMA_SOURCE_ADDRESS_WITHOUT_PORT%": (
                "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%" if self.direction == "INBOUND" else self.address
            ),
        }
        for placeholder, value in values.items():
            text = text.replace(placeholder, value)
        return text


def access_logs(conf: Conf | None, traffic: Traffic, http: bool) -> list[Config]:
    return [_logger(backend, traffic, http) for backend in (conf.backends if conf else ())]


def _logger(backend: Backend, traffic: Traffic, http: bool) -> Config:
    typed = {"@type": _FILE, "path": backend.file.path, "log_format": _format(backend.file, traffic, http)}
    return {"name": "envoy.access_loggers.file", "typed_config": typed}


def _format(file: FileBackend, traffic: Traffic, http: bool) -> Config:
    form, result = file.format, Config()
    if form is not None and form.json_fields is not None:
        result["json_format"] = {field.key: traffic.fill(field.value) for field in form.json_fields}
    else:
        plain = form.plain if form is not None and form.plain else (_HTTP_FORMAT if http else _TCP_FORMAT)
        line = traffic.fill(plain)
        result["text_format_source"] = {"inline_string": line if line.endswith("\n") else line + "\n"}
    if form is not None and form.omit_empty_values:
        result["omit_empty_values"] = True
    return result
