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

# Images ------------------------------------------------------------------------------------------
images_source = "registry"
images_archive = None

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
litellm_retries = 3
litellm_allowed_fails = 3
litellm_cooldown_seconds = 30
litellm_key_rpm = 120
litellm_key_tpm = 60_000

# Models ------------------------------------------------------------------------------------------
# Local servers answer at the host's bridge address, which containers know as host.docker.internal.
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
    # Local: off until their server runs; switch one on with models_enable.
    {
        "name": "chat-hermes-3-llama-3.1-8b",
        "enabled": False,
        "backend": "hosted_vllm/hermes-3-llama-3.1-8b",
        "api_base": "http://host.docker.internal:8084/v1",
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
        "backend": "hosted_vllm/qwen2.5-0.5b",
        "api_base": "http://host.docker.internal:8000/v1",
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
        "api_base": "http://host.docker.internal:11434",
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
        "api_base": "http://host.docker.internal:11434",
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
        "backend": "hosted_vllm/arctic-l-v2",
        "api_base": "http://host.docker.internal:8082/v1",
        "timeout_seconds": 30,
        "rpm": 60,
        "retries": 1,
        "context_tokens": 8192,
    },
    {
        "name": "rerank-bge-v2-m3",
        "enabled": False,
        "backend": "hosted_vllm/bge-reranker-v2-m3",
        "api_base": "http://host.docker.internal:8079",
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
