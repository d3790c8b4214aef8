// The database side of the WebAssembly engine: node-postgres behind the "bound" driver interface of Prisma 5.
// Prisma's own @prisma/adapter-pg 5.22 is not used: it never frees its errors, misreads timestamptz with an offset and
// refuses several types that LiteLLM selects.
'use strict'
const pg = require('pg')
const arrays = require('postgres-array')

// Prisma's ColumnTypeEnum; an array is its element's number plus 64.
// prettier-ignore
const Type = {
  Int32: 0, Int64: 1, Float: 2, Double: 3, Numeric: 4, Boolean: 5, Character: 6, Text: 7, Date: 8, Time: 9,
  DateTime: 10, Json: 11, Bytes: 13, Uuid: 15,
}
const ARRAY = 64
// PostgreSQL's type, its array type (pg_type.oid), Prisma's type. What is not here (enums, intervals) is text.
// prettier-ignore
const KNOWN_TYPES = [
  [16, 1000, Type.Boolean], [17, 1001, Type.Bytes], [18, 1002, Type.Character], [19, 1003, Type.Text],
  [20, 1016, Type.Int64], [21, 1005, Type.Int32], [23, 1007, Type.Int32], [25, 1009, Type.Text], [26, 1028, Type.Int64],
  [114, 199, Type.Json], [650, 651, Type.Text], [700, 1021, Type.Float], [701, 1022, Type.Double],
  [790, 791, Type.Numeric], [869, 1041, Type.Text], [1042, 1014, Type.Text], [1043, 1015, Type.Text],
  [1082, 1182, Type.Date], [1083, 1183, Type.Time], [1114, 1115, Type.DateTime], [1184, 1185, Type.DateTime],
  [1266, 1270, Type.Time], [1700, 1231, Type.Numeric], [2950, 2951, Type.Uuid], [3802, 3807, Type.Json],
]
const TYPES = new Map(
  KNOWN_TYPES.flatMap(([oid, array, type]) => [
    [oid, type],
    [array, type + ARRAY],
  ]),
)
const UNREACHABLE = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ETIMEDOUT',
  'ENOENT',
])
const URL_OPTIONS = [
  'connection_limit',
  'pool_timeout',
  'connect_timeout',
  'socket_timeout',
  'max_connection_lifetime',
  'max_idle_connection_lifetime',
  'pgbouncer',
  'statement_cache_size',
  'schema',
]
const CONTEXT_LIFE_MS = 5000

const withoutOffset = (text) => text.replace(/[+-]\d\d(:?\d\d)?$/, '')
const element = {
  // The session is in UTC: the offset is always +00.
  [Type.DateTime]: withoutOffset,
  [Type.Time]: withoutOffset,
  [Type.Boolean]: (text) => text === 't',
  [Type.Int32]: Number,
  [Type.Float]: Number,
  [Type.Double]: Number,
  [Type.Bytes]: (text) => [...Buffer.from(text.slice(2), 'hex')],
  // Money comes with its sign and its commas.
  [Type.Numeric]: (text) => text.replace(/[$,]/g, ''),
}
const same = (text) => text

function parser(oid) {
  const type = TYPES.get(oid) ?? Type.Text
  if (type < ARRAY) return element[type] ?? same
  const one = element[type - ARRAY] ?? same
  return (text) => arrays.parse(text, one)
}
const TEXT_TYPES = { getTypeParser: parser }

/** A value of the engine as PostgreSQL's text form; node-postgres does the rest (lists, bytes). */
function parameter(value, type) {
  if (value === null || value === undefined) return null
  if (type === 'Json') return typeof value === 'string' ? value : JSON.stringify(value)
  if (Array.isArray(value)) return value.map((one) => (one instanceof Uint8Array ? Buffer.from(one) : one))
  return value
}

function ok(value) {
  return { ok: true, value, map: (change) => ok(change(value)), flatMap: (change) => change(value) }
}

function failed(error) {
  const self = { ok: false, error, map: () => self, flatMap: () => self }
  return self
}

/** A pool of connections to the database of a URL in Prisma's style. */
class Database {
  constructor(text) {
    const url = new URL(text)
    const taken = Object.fromEntries(URL_OPTIONS.map((name) => [name, url.searchParams.get(name)]))
    for (const name of URL_OPTIONS) url.searchParams.delete(name)
    // `prefer`, Prisma's default, would be an error here where the server has no TLS.
    if (url.searchParams.get('sslmode') === 'prefer') url.searchParams.delete('sslmode')
    const settings = [url.searchParams.get('options'), '-c TimeZone=UTC -c DateStyle=ISO']
    if (taken.schema) settings.push(`-c search_path="${taken.schema}"`)
    // A pooler refuses start-up options; it is told after the connection instead.
    this.pooled = taken.pgbouncer === 'true'
    if (!this.pooled) url.searchParams.set('options', settings.filter(Boolean).join(' '))
    this.schema = taken.schema ?? 'public'
    this.address = `${url.hostname || 'localhost'}:${url.port || 5432}`
    const seconds = (name, fallback) => Number(taken[name] ?? fallback) * 1000
    this.pool = new pg.Pool({
      connectionString: url.href,
      max: Number(taken.connection_limit ?? 10),
      connectionTimeoutMillis: seconds('pool_timeout', 10),
      idleTimeoutMillis: seconds('max_idle_connection_lifetime', 300),
      maxLifetimeSeconds: Number(taken.max_connection_lifetime ?? 0),
      query_timeout: seconds('socket_timeout', 0) || undefined,
      allowExitOnIdle: false,
    })
    // An idle connection that the server closes is no failure of a query: the pool drops it.
    this.pool.on('error', () => {})
    if (this.pooled) {
      this.pool.on('connect', (client) => client.query(`SET TimeZone TO 'UTC'; SET DateStyle TO 'ISO'`).catch(() => {}))
    }
  }

  async check() {
    try {
      await this.pool.query('SELECT 1')
    } catch (error) {
      const { message, error_code: error_code } = this.describe(error)
      throw Object.assign(new Error(message), { body: { message, error_code, meta: {}, is_panic: false } })
    }
  }

  /** A failure outside of SQL in the words that LiteLLM matches to tell an outage from a bad query. */
  describe(error) {
    const text = String(error?.message ?? error)
    const code = error?.code ?? error?.errors?.[0]?.code
    if (/timeout exceeded when trying to connect/.test(text)) {
      const message = 'Timed out fetching a new connection from the connection pool.'
      return { error_code: 'P2024', message: `${message} (connection limit: ${this.pool.options.max})` }
    }
    if (UNREACHABLE.has(code)) {
      return { error_code: 'P1001', message: `Can't reach database server at \`${this.address}\`` }
    }
    if (code === '28P01' || code === '28000') {
      return {
        error_code: 'P1000',
        message: `Authentication failed against database server at \`${this.address}\`: ${text}`,
      }
    }
    if (code === '3D000')
      return { error_code: 'P1003', message: `Database does not exist at \`${this.address}\`: ${text}` }
    if (/terminat|ECONNRESET|EPIPE|not queryable/i.test(`${text} ${code}`) || /^57P0/.test(code ?? '')) {
      return { error_code: 'P1017', message: 'Server has closed the connection.' }
    }
    return { error_code: 'P2036', message: text }
  }
}

/** What the engine calls. Every method answers a result object; nothing may throw into WebAssembly. */
class Adapter {
  constructor(database) {
    this.database = database
    this.errors = new Map()
    this.lastError = 0
    // When the engine gives up on a transaction it drops our functions without a word. It keeps only the functions of
    // the object, so one of them is watched, never the object.
    this.abandoned = new FinalizationRegistry((release) => release(true))
  }

  connectionError(id) {
    const error = this.errors.get(id)
    this.errors.delete(id)
    return this.database.describe(error ?? 'unknown error of the database connection')
  }

  remember(error) {
    this.lastError += 1
    this.errors.set(this.lastError, error)
    // An error that nobody asks for must not stay for ever.
    this.errors.delete(this.lastError - 1000)
    return failed({ kind: 'GenericJs', id: this.lastError })
  }

  failure(error) {
    // Only errors of a statement: 08 and 57P0x say that the connection is gone.
    const statement = typeof error?.severity === 'string' && !/^(08|57P0|28|3D|53300)/.test(error.code)
    if (!statement) return this.remember(error)
    const { code, severity, message, detail, column, hint } = error
    return failed({ kind: 'Postgres', code, severity, message, detail, column, hint })
  }

  async perform(client, { sql, args, argTypes }) {
    const values = args.map((value, at) => parameter(value, argTypes?.[at]))
    try {
      return ok(await client.query({ text: sql, values, rowMode: 'array', types: TEXT_TYPES }))
    } catch (error) {
      return this.failure(error)
    }
  }

  queryable(client, after = same) {
    return {
      provider: 'postgres',
      adapterName: 'pg',
      queryRaw: async (query) =>
        (await this.perform(client, query)).map(({ fields, rows }) => ({
          columnNames: fields.map(({ name }) => name),
          columnTypes: fields.map(({ dataTypeID }) => TYPES.get(dataTypeID) ?? Type.Text),
          rows,
        })),
      executeRaw: async (query) => {
        const result = await this.perform(client, query)
        after(query.sql, result.ok)
        return result.map(({ rowCount }) => rowCount ?? 0)
      },
    }
  }

  bound() {
    return {
      ...this.queryable(this.database.pool),
      errorRegistry: { consumeError: (id) => ({ error: this.errors.get(id) }) },
      getConnectionInfo: () => ok({ schemaName: this.database.schema }),
      transactionContext: () => this.context(),
    }
  }

  async context() {
    let client
    try {
      client = await this.database.pool.connect()
    } catch (error) {
      return this.remember(error)
    }
    // Without a listener, a connection that dies inside a transaction would end the process.
    const ignore = () => {}
    client.on('error', ignore)
    let out = true
    const release = (destroy) => {
      if (!out) return
      out = false
      client.off('error', ignore)
      client.release(destroy)
    }
    const forgotten = setTimeout(release, CONTEXT_LIFE_MS, true)
    return ok({
      ...this.queryable(client),
      startTransaction: async () => {
        clearTimeout(forgotten)
        return ok(this.transaction(client, release))
      },
    })
  }

  transaction(client, release) {
    // The engine itself sends BEGIN, COMMIT and ROLLBACK. A connection whose end was not seen is not lent again.
    let open = false
    const follow = (sql, succeeded) => {
      if (/^BEGIN/.test(sql)) open = true
      else if (succeeded && /^(COMMIT|ROLLBACK)$/.test(sql)) open = false
    }
    const finish = async () => {
      this.abandoned.unregister(token)
      release(open)
      return ok(undefined)
    }
    const token = {}
    const commit = () => finish()
    const rollback = () => finish()
    this.abandoned.register(rollback, release, token)
    return { ...this.queryable(client, follow), options: { usePhantomQuery: false }, commit, rollback }
  }
}

module.exports = { Adapter, Database }
