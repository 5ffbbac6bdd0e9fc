"""A client of the native surface that resumes by itself."""

from holdfast.client._http import DEFAULT_URL as DEFAULT_URL
from holdfast.client._http import AsyncClient as AsyncClient
from holdfast.client._http import ServerUnreachable as ServerUnreachable
