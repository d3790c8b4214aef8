"""The documents that commands print with --json.

`python -m gatehouse docs` writes the JSON schema of each to docs/schemas/. A field may be added;
none is renamed or removed without a line in CHANGELOG.md.
"""

# Name of the document → the pydantic model, imported when it is needed.
SCHEMAS: dict[str, str] = {
    "audit": "gatehouse.tool.audit:Audit",
    "backup-list": "gatehouse.tool.backup_documents:BackupList",
    "backup-now": "gatehouse.tool.backup_documents:BackupMade",
    "backup-prune": "gatehouse.tool.backup_documents:BackupPruned",
    "backup-verify": "gatehouse.tool.backup_documents:BackupVerified",
    "drill": "gatehouse.tool.backup_documents:DrillDone",
    "restore": "gatehouse.tool.backup_documents:Restored",
    "engine-list": "gatehouse.tool.engine_documents:EngineList",
    "engine-plan": "gatehouse.tool.engine_documents:EnginePlan",
    "models-list": "gatehouse.tool.engine_documents:ModelsList",
    "health-status": "gatehouse.health.document:Document",
    "inventory": "gatehouse.tool.inventory:InventoryDocument",
    "keys-check": "gatehouse.tool.keys_documents:Summary",
    "keys-declare": "gatehouse.tool.keys_documents:Declared",
    "keys-list": "gatehouse.tool.keys_documents:KeyList",
    "keys-made": "gatehouse.tool.keys_documents:Made",
    "keys-removed": "gatehouse.tool.keys_documents:Removed",
    "knowledge": "gatehouse.tool.knowledge:KnowledgeDocument",
    "knowledge-refresh": "gatehouse.tool.knowledge:RefreshDocument",
    "log": "gatehouse.tool.log:LogDocument",
    "open": "gatehouse.tool.open:OpenDocument",
    "probe": "gatehouse.tool.probe:ProbeDocument",
    "releases": "gatehouse.tool.releases:ReleasesDocument",
    "secrets-list": "gatehouse.tool.secrets:SecretsDocument",
    "smoke": "gatehouse.tool.smoke:SmokeDocument",
    "spend": "gatehouse.tool.spend:Spend",
    "timers": "gatehouse.tool.timers:TimersDocument",
    "doctor": "gatehouse.tool.doctor:Diagnosis",
    "upgrade": "gatehouse.upgrade:Preview",
    "status": "gatehouse.tool.checking:Status",
}
