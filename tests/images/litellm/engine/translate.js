// GraphQL, as prisma-client-py sends it, to the JSON protocol, the only one that the WebAssembly engine speaks.
'use strict'
const { parse } = require('graphql')

const ACTIONS = [
  'findUnique',
  'findFirst',
  'findMany',
  'createOne',
  'createMany',
  'updateOne',
  'updateMany',
  'deleteOne',
  'deleteMany',
  'upsertOne',
  'aggregate',
  'groupBy',
]
const ROOT = new RegExp(`^(${ACTIONS.join('|')})(.+?)(OrThrow)?$`)
// Operators whose operand is once more `{where, data, create, update}`, not the fields of the related model.
const ENVELOPES = new Set(['connectOrCreate', 'upsert', 'update', 'updateMany'])
const ENVELOPE_KEYS = new Set(['where', 'data', 'create', 'update'])
const RELATION_OPERATORS = new Set([
  'create',
  'connect',
  'disconnect',
  'set',
  'delete',
  'deleteMany',
  'some',
  'every',
  'none',
  'is',
  'isNot',
  ...ENVELOPES,
])

/** model name -> field name -> type name, from the text of a schema. */
function fieldTypes(schema) {
  const models = new Map()
  for (const [, name, body] of schema.matchAll(/^model\s+(\w+)\s*\{([\s\S]*?)^\}/gm)) {
    const fields = [...body.matchAll(/^[ \t]+(\w+)[ \t]+(\w+)/gm)].map(([, field, type]) => [field, type])
    models.set(name, new Map(fields))
  }
  return models
}

function scalar(node) {
  switch (node.kind) {
    case 'NullValue':
      return null
    case 'IntValue': {
      const number = Number(node.value)
      return Number.isSafeInteger(number) ? number : { $type: 'BigInt', value: node.value }
    }
    case 'FloatValue':
      return Number(node.value)
    case 'Variable':
      throw new Error(`variable $${node.name.value}: values are expected inside the query`)
    default:
      return node.value
  }
}

function object(node, convert) {
  return Object.fromEntries(node.fields.map((field) => [field.name.value, convert(field.name.value, field.value)]))
}

/** A value with no model behind it. */
function untyped(node) {
  if (node.kind === 'ListValue') return node.values.map(untyped)
  if (node.kind === 'ObjectValue') return object(node, (_, value) => untyped(value))
  return scalar(node)
}

/** Json goes as text in a string; unmarked, the engine would store the string. */
function json(node) {
  if (node.kind === 'StringValue') return { $type: 'Json', value: node.value }
  if (node.kind === 'EnumValue') return { $type: 'Enum', value: node.value }
  if (node.kind === 'ListValue') return node.values.map(json)
  if (node.kind !== 'ObjectValue') return scalar(node)
  return object(node, (key, value) => {
    const plainOperator = key === 'path' || key === 'mode' || key.startsWith('string_')
    return plainOperator ? untyped(value) : json(value)
  })
}

class Translator {
  constructor(schema) {
    this.models = fieldTypes(schema)
  }

  /** The fields of a model, or AND/OR/NOT, compound keys and arguments, which hold fields of the same model. */
  input(model, node) {
    if (node.kind === 'ListValue') return node.values.map((value) => this.input(model, value))
    if (node.kind !== 'ObjectValue') return scalar(node)
    return object(node, (key, value) => {
      const type = this.models.get(model)?.get(key)
      if (type === 'Json') return json(value)
      if (this.models.has(type)) return this.relation(type, value)
      return type ? untyped(value) : this.input(model, value)
    })
  }

  relation(model, node) {
    if (node.kind === 'ListValue') return node.values.map((value) => this.relation(model, value))
    if (node.kind !== 'ObjectValue') return scalar(node)
    if (!node.fields.every((field) => RELATION_OPERATORS.has(field.name.value))) return this.input(model, node)
    return object(node, (key, value) => (ENVELOPES.has(key) ? this.envelope(model, value) : this.input(model, value)))
  }

  envelope(model, node) {
    if (node.kind === 'ListValue') return node.values.map((value) => this.envelope(model, value))
    if (node.kind !== 'ObjectValue') return scalar(node)
    if (!node.fields.every((field) => ENVELOPE_KEYS.has(field.name.value))) return this.input(model, node)
    return object(node, (_, value) => this.input(model, value))
  }

  arguments(model, nodes) {
    return Object.fromEntries(nodes.map((node) => [node.name.value, this.input(model, node.value)]))
  }

  selection(model, set) {
    if (!set) return {}
    return Object.fromEntries(
      set.selections.map((field) => {
        const name = field.name.value
        if (!field.selectionSet && !field.arguments?.length) return [name, true]
        const type = this.models.get(model)?.get(name)
        const inner = this.models.has(type) ? type : model
        const nested = {
          arguments: this.arguments(inner, field.arguments),
          selection: this.selection(inner, field.selectionSet),
        }
        return [name, nested]
      }),
    )
  }

  /** One GraphQL document with one root field to one request. Throws for a field that is no known action. */
  request(text) {
    const [root] = parse(text, { noLocation: true }).definitions[0].selectionSet.selections
    const name = root.name.value
    if (name === 'queryRaw' || name === 'executeRaw') {
      const values = root.arguments.map((node) => [node.name.value, untyped(node.value)])
      return { action: name, query: { arguments: Object.fromEntries(values), selection: {} } }
    }
    const [, action, model, orThrow = ''] = ROOT.exec(name) ?? []
    if (!this.models.has(model)) throw new Error(`${name}: no such action on a model of this schema`)
    return {
      modelName: model,
      action: action + orThrow,
      query: { arguments: this.arguments(model, root.arguments), selection: this.selection(model, root.selectionSet) },
    }
  }
}

/** Typed values of the JSON protocol to what the GraphQL protocol answers: Json, BigInt, Decimal and dates as text. */
function plain(value) {
  if (Array.isArray(value)) return value.map(plain)
  if (value === null || typeof value !== 'object') return value
  if ('$type' in value) return value.value
  for (const key of Object.keys(value)) value[key] = plain(value[key])
  return value
}

function legacyValue(type, value) {
  if (value === null) return { prisma__type: 'null', prisma__value: null }
  if (!type.endsWith('-array')) return { prisma__type: type, prisma__value: value }
  const element = type.slice(0, -'-array'.length)
  return { prisma__type: 'array', prisma__value: value.map((one) => legacyValue(element, one)) }
}

function legacyRows({ columns, types, rows }) {
  return rows.map((row) => Object.fromEntries(columns.map((name, at) => [name, legacyValue(types[at], row[at])])))
}

module.exports = { Translator, legacyRows, plain }
