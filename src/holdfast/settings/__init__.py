"""Every setting with its default, and where settings come from.

Weakest first: the defaults in `tables`, `holdfast.toml` (or the file given), a `.env` file in the
working folder, the environment. `HOLDFAST_<SECTION>__<KEY>` sets one value;
`HOLDFAST_DATABASE_URL` is a second name for `storage.url`. `${NAME}` in the file stands for a
variable of the environment or of `.env`.
"""

from holdfast.settings.messages import Unset as Unset
from holdfast.settings.messages import check_table as check_table
from holdfast.settings.sources import load as load
from holdfast.settings.tables import DEFAULT_FILE as DEFAULT_FILE
from holdfast.settings.tables import DialectSettings as DialectSettings
from holdfast.settings.tables import LimitSettings as LimitSettings
from holdfast.settings.tables import Names as Names
from holdfast.settings.tables import NodeSettings as NodeSettings
from holdfast.settings.tables import PresetSettings as PresetSettings
from holdfast.settings.tables import RouterSettings as RouterSettings
from holdfast.settings.tables import RunSettings as RunSettings
from holdfast.settings.tables import ServerSettings as ServerSettings
from holdfast.settings.tables import Settings as Settings
from holdfast.settings.tables import StorageSettings as StorageSettings
from holdfast.settings.tables import StreamSettings as StreamSettings
from holdfast.settings.tables import Table as Table
