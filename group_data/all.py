"""Every default of Gatehouse. docs/settings.md says what each one means; `make settings` checks.

Change a value here, or for one group of hosts in group_data/<group>.py, or for one host in
`inventory`. pyinfra merges key by key: a dictionary or list that you give replaces the whole one
below (so add models of your own to `models_extra`).
"""

from gatehouse.ssh import without_delay

ssh_paramiko_connect_kwargs = {"transport_factory": without_delay}

# The workstation ---------------------------------------------------------------------------------
host_group = "gatehouse"
host_disk_min_gib = 10
host_memory_min_mib = 3500
host_cpu_cores = None
host_memory_mib = None
host_time_sync_required = True

# Deploys -----------------------------------------------------------------------------------------
deploy_silence_seconds = 20
deploy_releases = 5
deploy_validate = True

# Docker ------------------------------------------------------------------------------------------
docker_source = "docker"
docker_repository_url = "https://download.docker.com/linux"
docker_repository_fingerprint = "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"
docker_live_restore = True
docker_log_max_mib = 10
docker_log_files = 3

# Addresses ---------------------------------------------------------------------------------------
network_bind_address = "127.0.0.1"
network_bind_public = False
network_subnet = "172.30.40.0/24"
network_inner_subnet = "172.30.41.0/24"
network_engines_subnet = "172.30.42.0/24"

# Firewall ----------------------------------------------------------------------------------------
# Neighbours never reach the stack's networks. This is about everything else on the host.
firewall_enabled = False
firewall_ports = []
firewall_udp_ports = []
firewall_ssh_networks = ["0.0.0.0/0", "::/0"]
firewall_interfaces = []
firewall_bridge_ports = []
firewall_undo_seconds = 60

# Images ------------------------------------------------------------------------------------------
images_source = "registry"
images_archive = None
images_lock = "images.lock"
images_cosign = "optional"
images_cosign_key = None

# Secrets -----------------------------------------------------------------------------------------
secrets_gid = 14670
secrets_file = "secrets.env"

# Postgres ----------------------------------------------------------------------------------------
postgres_image = "postgres:16-alpine"
postgres_user = "70:70"
postgres_port = 5434
postgres_connections = 100
postgres_memory_mib = 1024
postgres_cpus = 2.0
postgres_pids = 200
postgres_idle_seconds = 300
postgres_size_warn_mib = 10240
postgres_stop_grace_seconds = 90
postgres_start_timeout_seconds = 120

# Redis -------------------------------------------------------------------------------------------
redis_image = "redis:7-alpine"
redis_user = "999:1000"
redis_port = 6379
redis_cache_ttl_seconds = 600
redis_maxmemory_mib = 256
redis_memory_mib = 384
redis_cpus = 1.0
redis_pids = 64
redis_stop_grace_seconds = 20
redis_start_timeout_seconds = 60

# LiteLLM -----------------------------------------------------------------------------------------
litellm_image = "ghcr.io/berriai/litellm-non_root:v1.108.12"
litellm_user = "65534:65534"
litellm_port = 4000
litellm_workers = 4
litellm_worker_memory_mib = 1024
litellm_worker_requests = 10000
litellm_cpus = None
litellm_pids = 512
litellm_stop_grace_seconds = 45
litellm_start_timeout_seconds = 600
litellm_pool_connections = 25
litellm_request_timeout_seconds = 120
litellm_batch_write_seconds = 60
litellm_store_prompts = False
litellm_store_errors = True
litellm_spend_log_days = 90
litellm_admin_user = "admin"
litellm_ui_access = "admin_only"
litellm_forward_client_headers = False
litellm_api_docs = False
litellm_config_source = "file"
litellm_stream_guard: list[str] = []
litellm_retries = 3
litellm_allowed_fails = 3
litellm_cooldown_seconds = 30

# Keys --------------------------------------------------------------------------------------------
keys_rpm = 120
keys_tpm = 60_000
keys_days = 90
keys_warn_days = 14
keys_rotate_before_days = 7
keys_overlap_hours = 24
keys_teams: list[dict[str, object]] = []
keys_users: list[dict[str, object]] = []
keys_declared: list[dict[str, object]] = []

# MCP servers -------------------------------------------------------------------------------------
mcp_servers: list[dict[str, object]] = []
mcp_stdio_allowed = False

# Models ------------------------------------------------------------------------------------------
# A model with an engine is served by this host: the engine is below, and on when the model is. A
# server of your own answers at the host's bridge address, host.docker.internal for containers.
models_dir = "/var/lib/gatehouse/models"
models_hub_url = "https://huggingface.co"
models_pull = False
models = [
    # Built in: answered by the gateway itself, so that a fresh host can be tried and checked.
    {
        "name": "chat-selftest-builtin",
        "backend": "openai/selftest",
        "mock_response": "The gateway works. This is its built-in self-test model.",
        "context_tokens": 8192,
        "max_tokens": 1024,
    },
    {
        "name": "embed-selftest-builtin",
        "backend": "openai/selftest-embedding",
        "mock_response": [0.25, -0.5, 0.75, 1.0],
        "context_tokens": 8192,
    },
    # It always fails, so that `gatehouse smoke` sees its fallback answer.
    {
        "name": "chat-selftest-failing",
        "backend": "openai/selftest-failing",
        "mock_response": "litellm.InternalServerError",
        "retries": 0,
        "context_tokens": 8192,
        "max_tokens": 1024,
    },
    # Local: switch one on with models_enable.
    {
        "name": "chat-hermes-3-llama-3.1-8b",
        "enabled": False,
        "backend": "hosted_vllm/chat-hermes-3-llama-3.1-8b",
        "engine": "chat-hermes-3-llama-3.1-8b",
        "timeout_seconds": 120,
        "rpm": 60,
        "retries": 2,
        "context_tokens": 8192,
        "max_tokens": 2048,
        "tools": True,
    },
    {
        "name": "chat-qwen2.5-0.5b-vllm",
        "enabled": False,
        "backend": "hosted_vllm/chat-qwen2.5-0.5b-vllm",
        "engine": "chat-qwen2.5-0.5b-vllm",
        "timeout_seconds": 30,
        "rpm": 60,
        "retries": 1,
        "context_tokens": 4096,
        "max_tokens": 1024,
        "tools": True,
    },
    {
        "name": "chat-mistral-7b-ollama",
        "enabled": False,
        "backend": "ollama_chat/mistral:7b",
        "engine": "ollama-local",
        "timeout_seconds": 120,
        "rpm": 30,
        "retries": 2,
        "context_tokens": 32768,
        "max_tokens": 4096,
        "keep_alive": "5m",
        "tools": True,
    },
    {
        "name": "vision-qwen3-vl-4b-ollama",
        "enabled": False,
        "backend": "ollama_chat/qwen3-vl:4b",
        "engine": "ollama-local",
        "timeout_seconds": 120,
        "rpm": 10,
        "retries": 2,
        "context_tokens": 32768,
        "max_tokens": 4096,
        "keep_alive": "5m",
        "vision": True,
    },
    {
        "name": "embed-arctic-l-v2",
        "enabled": False,
        "backend": "hosted_vllm/embed-arctic-l-v2",
        "engine": "embed-arctic-l-v2",
        "timeout_seconds": 30,
        "rpm": 60,
        "retries": 1,
        "context_tokens": 8192,
    },
    {
        "name": "rerank-bge-v2-m3",
        "enabled": False,
        "backend": "hosted_vllm/rerank-bge-v2-m3",
        "engine": "rerank-bge-v2-m3",
        "timeout_seconds": 30,
        "rpm": 60,
        "retries": 1,
        "context_tokens": 8192,
    },
    # Cloud: offered as soon as OLLAMA_API_KEY is given.
    {
        "name": "qwen3-coder-480b-cloud",
        "backend": "ollama_chat/qwen3-coder:480b",
        "api_base": "https://ollama.com",
        "api_key": "OLLAMA_API_KEY",
        "timeout_seconds": 90,
        "retries": 2,
        "context_tokens": 262_144,
        "max_tokens": 65_536,
        "tools": True,
    },
    {
        "name": "kimi-k2-1t-cloud",
        "backend": "ollama_chat/kimi-k2:1t",
        "api_base": "https://ollama.com",
        "api_key": "OLLAMA_API_KEY",
        "timeout_seconds": 90,
        "retries": 2,
        "context_tokens": 262_144,
        "max_tokens": 65_536,
        "tools": True,
    },
    {
        "name": "deepseek-v3.1-671b-cloud",
        "backend": "ollama_chat/deepseek-v3.1:671b",
        "api_base": "https://ollama.com",
        "api_key": "OLLAMA_API_KEY",
        "timeout_seconds": 90,
        "retries": 2,
        "context_tokens": 163_840,
        "max_tokens": 65_536,
        "tools": True,
    },
]
models_extra: list[dict[str, object]] = []
models_enable: list[str] = []
models_aliases = {
    "chat-default": [
        "chat-hermes-3-llama-3.1-8b",
        "chat-mistral-7b-ollama",
        "chat-qwen2.5-0.5b-vllm",
        "qwen3-coder-480b-cloud",
        "chat-selftest-builtin",
    ],
    "embeddings-default": ["embed-arctic-l-v2", "embed-selftest-builtin"],
    "rerank-default": ["rerank-bge-v2-m3"],
    "deepseek-coder": ["deepseek-v3.1-671b-cloud"],
    "kimi-k2-coding": ["kimi-k2-1t-cloud"],
}
models_fallbacks = {
    "chat-selftest-failing": ["chat-selftest-builtin"],
    "chat-default": ["qwen3-coder-480b-cloud"],
    "chat-hermes-3-llama-3.1-8b": ["qwen3-coder-480b-cloud"],
    "chat-mistral-7b-ollama": ["qwen3-coder-480b-cloud"],
    "deepseek-coder": ["qwen3-coder-480b-cloud"],
    "kimi-k2-coding": ["kimi-k2-1t-cloud", "qwen3-coder-480b-cloud"],
}
models_context_fallbacks = {
    "chat-default": ["qwen3-coder-480b-cloud"],
    "chat-hermes-3-llama-3.1-8b": ["qwen3-coder-480b-cloud"],
    "chat-qwen2.5-0.5b-vllm": ["qwen3-coder-480b-cloud"],
}

# GPU ---------------------------------------------------------------------------------------------
gpu_mode = "auto"
gpu_reserve_mib = 512
gpu_driver_min = "550"
gpu_toolkit_source = "nvidia"
gpu_toolkit_repository_url = "https://nvidia.github.io/libnvidia-container"
gpu_toolkit_repository_fingerprint = "C95B321B61E88C1809C4F759DDCAE044F796ECB0"
gpu_watch_seconds = 60

# Engines -----------------------------------------------------------------------------------------
# None runs after a boot: the first request for its model starts it, idle time stops it.
engines_user = "65534:65534"
engines_pids = 512
engines_health_interval_seconds = 0.05
engines_stop_grace_seconds = 10
engines_llamacpp_image = "ghcr.io/ggml-org/llama.cpp:server-b6869"
engines_llamacpp_gpu_image = "ghcr.io/ggml-org/llama.cpp:server-cuda-b6869"
engines_vllm_image = "vllm/vllm-openai:v0.11.0"
engines_ollama_image = "ollama/ollama:0.12.6"
engines_tgi_image = "ghcr.io/huggingface/text-generation-inference:3.3.6"
engines = [
    {
        "name": "chat-hermes-3-llama-3.1-8b",
        "kind": "llamacpp",
        "port": 8084,
        "file": "Hermes-3-Llama-3.1-8B.Q4_K_M.gguf",
        "repository": "NousResearch/Hermes-3-Llama-3.1-8B-GGUF",
        "licence": "llama3",
        "context_tokens": 8192,
        "memory_mib": 6500,
    },
    {
        "name": "embed-arctic-l-v2",
        "kind": "embed",
        "port": 8082,
        "file": "snowflake-arctic-embed-l-v2.0-q8_0.gguf",
        "repository": "Casual-Autopsy/snowflake-arctic-embed-l-v2.0-gguf",
        "licence": "apache-2.0",
        "context_tokens": 8192,
        "memory_mib": 1500,
    },
    {
        "name": "rerank-bge-v2-m3",
        "kind": "rerank",
        "port": 8079,
        "file": "bge-reranker-v2-m3-Q8_0.gguf",
        "repository": "gpustack/bge-reranker-v2-m3-GGUF",
        "licence": "apache-2.0",
        "context_tokens": 8192,
        "memory_mib": 1500,
    },
    {
        "name": "chat-qwen2.5-0.5b-vllm",
        "kind": "vllm",
        "port": 8000,
        "file": "Qwen2.5-0.5B-Instruct",
        "repository": "Qwen/Qwen2.5-0.5B-Instruct",
        "licence": "apache-2.0",
        "context_tokens": 4096,
        "parallel": 32,
        "memory_mib": 5000,
        "arguments": [
            "--tool-call-parser",
            "hermes",
            "--enable-auto-tool-choice",
            "--gpu-memory-utilization",
            "0.2",
        ],
    },
    {
        "name": "ollama-local",
        "kind": "ollama",
        "port": 11434,
        "pulls": ["mistral:7b", "qwen3-vl:4b"],
        "memory_mib": 6500,
        # It gets its models by itself.
        "egress": True,
    },
]
engines_extra: list[dict[str, object]] = []

# The page of the host's health -------------------------------------------------------------------
health_port = 8181
health_hosts: list[str] = []
health_interval_seconds = 60

# Metrics -----------------------------------------------------------------------------------------
metrics_port = 9090
metrics_litellm = False
metrics_prometheus = False
metrics_prometheus_image = "prom/prometheus:v3.5.0"
metrics_alertmanager_image = "prom/alertmanager:v0.28.1"
metrics_user = "65534:65534"
metrics_prometheus_port = 9091
metrics_alertmanager_port = 9093
metrics_alertmanager_url = None
metrics_retention_days = 15
metrics_memory_mib = 512
metrics_start_timeout_seconds = 120

# Alerts ------------------------------------------------------------------------------------------
alerts_url = None
alerts_severity = "failure"
alerts_after_seconds = 120

# What is known of models elsewhere ---------------------------------------------------------------
# LiteLLM's prices and context lengths. A private gateway asks nobody unless it is told to.
knowledge_refresh = False
knowledge_url = (
    "https://raw.githubusercontent.com/BerriAI/litellm/main/model_prices_and_context_window.json"
)

# Backups -----------------------------------------------------------------------------------------
backup_enabled = True
backup_repository = "/var/lib/gatehouse/backup/repository"
backup_keep_daily = 7
backup_keep_weekly = 4
backup_keep_monthly = 3
backup_age_hours = 26
backup_drill_age_days = 8
backup_reserve_mib = 1024

# Timers ------------------------------------------------------------------------------------------
# systemd calendar expressions, or "off".
timers_status = "*:0/5"
timers_inventory = "hourly"
timers_probe = "daily"
timers_smoke = "daily"
timers_keys = "daily"
timers_knowledge = "weekly"
timers_backup = "*-*-* 02:00"
timers_drill = "Sun 05:00"

# Audit -------------------------------------------------------------------------------------------
# What does not hold on purpose, by its id in `gatehouse audit`, and why.
audit_exceptions = {
    "1.1.3": "one person or a small team: who became root is in the journal and the audit log",
    "2.9": "moves Docker's data and breaks cards; every container has a user of its own instead",
    "2.12": "nobody but root reaches the daemon: there is nobody to tell apart",
    "2.13": "a single host: logs are rotated here, and hold no prompts",
    "2.16": "Docker's default; without it loopback ports need route_localnet, which is worse",
    "4.5": "Docker's content trust is Notary v1, which the images are not signed with: digests are",
    "5.15": "unless-stopped: with on-failure nothing would come back after a reboot",
}
