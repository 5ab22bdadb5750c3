// checks.mjs BOOTSTRAP [NAME...]: what kafkajs must be able to do with a broker, in its default settings.
// Prints "PASS name seconds", "FAIL name seconds message" a check; see tests/clients/README.md.
// What kafkajs has no calls for is in FINDINGS.md.
import assert from 'node:assert/strict'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import * as zstd from '@bokuweb/zstd-wasm'
import kafkajs from 'kafkajs'
import lz4 from 'lz4-napi'
import snappy from 'snappyjs'

const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, Partitioners, logLevel } = kafkajs

// kafkajs brings gzip only; a codec is two functions on the records of a batch.
await zstd.init()
CompressionCodecs[CompressionTypes.Snappy] = () => ({
  compress: async (encoder) => Buffer.from(snappy.compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(snappy.uncompress(buffer)),
})
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async (encoder) => lz4.compressFrame(encoder.buffer),
  decompress: async (buffer) => lz4.decompressFrame(buffer),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from(zstd.compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(zstd.decompress(buffer)),
})

const [bootstrap, ...wanted] = process.argv.slice(2)
const settings = { brokers: [bootstrap], logLevel: logLevel.NOTHING }
const kafka = new Kafka(settings)
// Retries of kafkajs end after 5 by default, which is shorter than a broker's restart may take.
const patient = new Kafka({ ...settings, retry: { retries: 100, maxRetryTime: 1000 } })
const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
let serial = 0
const unique = (stem) => `${stem}-${Date.now().toString(36)}-${process.pid}-${serial++}`

async function until(what, seconds, done) {
  const end = Date.now() + seconds * 1000
  while (!(await done())) {
    assert(Date.now() < end, `not within ${seconds} s: ${what}`)
    await sleep(20)
  }
}

async function withAdmin(run) {
  const admin = kafka.admin()
  await admin.connect()
  try {
    return await run(admin)
  } finally {
    await admin.disconnect()
  }
}

async function withProducer(settings, run, client = kafka) {
  const producer = client.producer({ createPartitioner: Partitioners.DefaultPartitioner, ...settings })
  await producer.connect()
  try {
    return await run(producer)
  } finally {
    await producer.disconnect()
  }
}

// A broker may answer CreateTopics before its own metadata knows the topic, and show a leader before that one has
// a log. kafkajs would answer an error of one partition by sending the others' records, too, once more.
async function leaders(admin, topic, count) {
  try {
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
    if (topics[0].partitions.length !== count || topics[0].partitions.some((p) => p.leader !== 0)) return false
    return (await admin.fetchTopicOffsets(topic)).length === count
  } catch {
    return false
  }
}

async function makeTopic(stem, numPartitions, configEntries = []) {
  const topic = unique(stem)
  await withAdmin(async (admin) => {
    await admin.createTopics({ topics: [{ topic, numPartitions, configEntries }], waitForLeaders: false })
    await until('the leaders', 10, () => leaders(admin, topic, numPartitions))
  })
  return topic
}

// A group member in default settings; `seen` maps place to how often it was read.
async function join(groupId, topic, seen, settings = {}, client = kafka) {
  const consumer = client.consumer({ groupId, ...settings })
  const member = { consumer, owned: [] }
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    member.owned = payload.memberAssignment[topic] ?? []
  })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({
    eachMessage: async ({ partition, message }) => {
      const place = `${partition}@${message.offset}`
      seen.set(place, { message, count: (seen.get(place)?.count ?? 0) + 1 })
    },
  })
  member.leave = () => consumer.disconnect()
  return member
}

// Reads a topic from its start until `count` records are there, and sees that no more come.
async function readAll(topic, count) {
  const seen = new Map()
  const member = await join(unique('reader'), topic, seen, { maxWaitTimeInMs: 300 })
  try {
    await until(`${count} records`, 60, () => seen.size >= count)
    await sleep(300)
  } finally {
    await member.leave()
  }
  assert.equal(seen.size, count, 'records read')
  return seen
}

const value = (i) => `value-${i}-${'abcdefgh'.repeat(i % 50)}`

async function roundTrip(compression, acks) {
  const topic = await makeTopic('codec', 3)
  const messages = Array.from({ length: 300 }, (_, i) => ({ partition: i % 3, key: `k${i}`, value: value(i) }))
  await withProducer({}, (producer) => producer.send({ topic, acks, compression, messages }))
  for (const [place, { message }] of await readAll(topic, 300)) {
    const [partition, offset] = place.split('@').map(Number)
    const i = offset * 3 + partition
    assert.equal(message.key.toString(), `k${i}`)
    assert.equal(message.value.toString(), value(i))
  }
}

async function idempotent() {
  const topic = await makeTopic('idempotent', 2)
  await withProducer({ idempotent: true }, async (producer) => {
    for (let n = 0; n < 100; n++) {
      const messages = Array.from({ length: 20 }, (_, j) => ({ partition: j % 2, value: String(n * 20 + j) }))
      await producer.send({ topic, messages })
    }
  })
  for (const [place, { message }] of await readAll(topic, 2000)) {
    const [partition, offset] = place.split('@').map(Number)
    assert.equal(message.value.toString(), String(offset * 2 + partition))
  }
}

// A broker without transactions must say so at once; one with them must carry a commit out.
async function transactionalId() {
  const topic = await makeTopic('transactional', 1)
  const began = Date.now()
  // The refusal comes from FindCoordinator; kafkajs names it by a class of its own.
  const refusal = (error) => {
    const kind = error.type ?? error.cause?.type ?? error.name
    assert(['TRANSACTIONAL_ID_AUTHORIZATION_FAILED', 'KafkaJSGroupCoordinatorNotFound'].includes(kind), String(error))
    return true
  }
  const refused = await withProducer({ transactionalId: unique('tx'), maxInFlightRequests: 1 }, async (producer) => {
    const transaction = await producer.transaction()
    await transaction.send({ topic, messages: [{ value: 'v' }] })
    await transaction.commit()
    return false
  }).catch(refusal)
  if (refused) assert(Date.now() - began < 15000, 'refused, but only after 15 s')
  else await readAll(topic, 1)
}

async function autoCreate() {
  const topic = unique('appears')
  await withProducer({}, (producer) => producer.send({ topic, messages: [{ value: 'v' }] }))
  await withAdmin(async (admin) => {
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
    assert.equal(topics[0].partitions.length, 4, 'partitions (num.partitions)')
  })
  await readAll(topic, 1)
}

async function oddRecords() {
  const topic = await makeTopic('odd', 1)
  const large = 'x'.repeat(900_000)
  const timestamp = String(Date.now() - 12_345)
  await withProducer({}, async (producer) => {
    for (const message of [
      { key: null, value: null },
      { key: '', value: '' },
      { key: 'schlüssel', value: 'wert', timestamp, headers: { a: ['1', '2'], b: '' } },
      { key: 'large', value: large },
    ]) {
      await producer.send({ topic, messages: [message] })
    }
  })
  const seen = await readAll(topic, 4)
  const at = (offset) => seen.get(`0@${offset}`).message
  assert.equal(at(0).key, null)
  assert.equal(at(0).value, null)
  assert.equal(at(1).value.length, 0)
  assert.equal(at(2).key.toString(), 'schlüssel')
  assert.equal(at(2).timestamp, timestamp)
  assert.deepEqual(at(2).headers.a.map(String), ['1', '2'])
  assert.equal(at(3).value.toString(), large)
}

async function refused(type, call) {
  try {
    await call()
  } catch (error) {
    const nested = (error.groups ?? []).map((group) => group.error)
    const types = [error, error.cause, ...(error.errors ?? []), ...nested].map((e) => e?.type)
    assert(types.includes(type), `expected ${type}, found ${types} ${error}`)
    return
  }
  assert.fail(`expected ${type}, found success`)
}

async function tooLarge() {
  const topic = await makeTopic('limit', 1, [{ name: 'max.message.bytes', value: '10000' }])
  await withProducer({}, async (producer) => {
    await refused('MESSAGE_TOO_LARGE', () => producer.send({ topic, messages: [{ value: 'x'.repeat(20_000) }] }))
    const [sent] = await producer.send({ topic, messages: [{ value: 'small' }] })
    assert.equal(sent.baseOffset, '0')
  })
}

async function produce(topic, partitions, count) {
  const messages = Array.from({ length: count }, (_, i) => ({ partition: i % partitions, value: `v${i}` }))
  await withProducer({}, (producer) => producer.send({ topic, messages }))
}

function each(members, count) {
  const all = new Set(members.flatMap((m) => m.owned))
  return members.every((m) => m.owned.length === count) && all.size === count * members.length
}

async function groupRebalance() {
  const topic = await makeTopic('rebalance', 6)
  const group = unique('group')
  const seen = new Map()
  let members = []
  try {
    for (let i = 0; i < 3; i++) members.push(await join(group, topic, seen))
    await until('two partitions for each of three', 60, () => each(members, 2))
    await produce(topic, 6, 600)
    await until('600 records', 30, () => seen.size === 600)
    const [leaving] = members.splice(1, 1)
    await leaving.leave()
    await until('three partitions for each of two', 60, () => each(members, 3))
    await produce(topic, 6, 600)
    await until('1200 records', 30, () => seen.size === 1200)
  } finally {
    for (const m of members) await m.leave()
  }
  // kafkajs commits what was handled when a member leaves or rejoins.
  await withAdmin(async (admin) => {
    const [{ partitions }] = await admin.fetchOffsets({ groupId: group, topics: [topic] })
    for (const p of partitions) assert.equal(p.offset, '200', `committed of ${p.partition}`)
  })
  assert.equal([...seen.values()].filter((s) => s.count > 1).length, 0, 'records read twice')
}

async function groupResume() {
  const topic = await makeTopic('resume', 1)
  await produce(topic, 1, 100)
  const groupId = unique('group')
  const offsets = []
  const read = async (consumer, stop) => {
    await consumer.connect()
    await consumer.subscribe({ topics: [topic], fromBeginning: true })
    let got = 0
    await consumer.run({
      autoCommit: false,
      eachMessage: async ({ message }) => {
        offsets.push(Number(message.offset))
        got++
      },
    })
    await until(`${stop} records`, 30, () => got >= stop)
  }
  const before = kafka.consumer({ groupId })
  await read(before, 40)
  await before.commitOffsets([{ topic, partition: 0, offset: '40', metadata: 'note' }])
  await before.disconnect()
  offsets.length = 0
  const after = kafka.consumer({ groupId })
  await read(after, 60)
  await after.disconnect()
  assert.equal(offsets[0], 40)
  assert.equal(offsets.length, 60)
}

async function seekByTime() {
  const topic = await makeTopic('time', 1)
  const start = Date.now() - 500_000
  await withProducer({}, async (producer) => {
    for (let batch = 0; batch < 10; batch++) {
      const messages = Array.from({ length: 10 }, (_, j) => batch * 10 + j).map((i) => ({
        value: `v${i}`,
        timestamp: String(start + i * 1000),
      }))
      await producer.send({ topic, messages })
    }
  })
  await withAdmin(async (admin) => {
    for (const [delta, offset] of [[-5000, 0], [0, 0], [55_000, 55], [55_001, 56], [99_000, 99]]) {
      const [found] = await admin.fetchTopicOffsetsByTimestamp(topic, start + delta)
      assert.equal(found.offset, String(offset), `at ${delta} ms`)
    }
    const [ends] = await admin.fetchTopicOffsets(topic)
    assert.equal(ends.low, '0')
    assert.equal(ends.high, '100')
  })
  const seen = []
  const consumer = kafka.consumer({ groupId: unique('group') })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  consumer.run({ eachMessage: async ({ message }) => void seen.push(message.value.toString()) })
  consumer.seek({ topic, partition: 0, offset: '56' })
  await until('the records after the position', 30, () => seen.includes('v99'))
  await consumer.disconnect()
  assert.equal(seen[0], 'v56')
}

async function longPoll() {
  const topic = await makeTopic('poll', 1)
  const seen = new Map()
  const member = await join(unique('group'), topic, seen, { maxWaitTimeInMs: 6000 })
  await until('the partition', 30, () => member.owned.length === 1)
  await sleep(500)
  const began = Date.now()
  await produce(topic, 1, 1)
  await until('the record', 10, () => seen.size === 1)
  const waited = Date.now() - began
  await member.leave()
  assert(waited < 3000, 'the waiting fetch was not woken')
}

async function adminCluster() {
  await withAdmin(async (admin) => {
    const cluster = await admin.describeCluster()
    assert(cluster.clusterId)
    assert.deepEqual(cluster.brokers.map((b) => b.nodeId), [0])
  })
}

async function adminTopics() {
  const topic = unique('admin')
  const make = (name, extra = {}) => (admin) =>
    admin.createTopics({ topics: [{ topic: name, numPartitions: 2, ...extra }], waitForLeaders: false })
  await withAdmin(async (admin) => {
    await admin.createTopics({ validateOnly: true, waitForLeaders: false, topics: [{ topic, numPartitions: 2 }] })
    assert(!(await admin.listTopics()).includes(topic), 'validateOnly created the topic')
    assert.equal(await make(topic)(admin), true)
    assert.equal(await make(topic)(admin), false)
    await until('two partitions with leaders', 10, () => leaders(admin, topic, 2))
    await refused('INVALID_TOPIC_EXCEPTION', () => make('a b')(admin))
    await refused('INVALID_REPLICATION_FACTOR', () => make(`${topic}x`, { replicationFactor: 2 })(admin))
    await admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] })
    await refused('INVALID_PARTITIONS', () => admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] }))
    await until('five partitions with leaders', 10, () => leaders(admin, topic, 5))
  })
  // kafkajs asks for the metadata of every topic it was asked about, and fails if one of them is deleted.
  await withAdmin(async (admin) => {
    await admin.deleteTopics({ topics: [topic] })
    await until('the topic to go', 10, async () => !(await admin.listTopics()).includes(topic))
    await refused('UNKNOWN_TOPIC_OR_PARTITION', () => admin.deleteTopics({ topics: [topic] }))
  })
}

async function adminConfigs() {
  const topic = await makeTopic('config', 1, [{ name: 'retention.ms', value: '123456789' }])
  const type = ConfigResourceTypes.TOPIC
  await withAdmin(async (admin) => {
    const get = async (name) => {
      const { resources } = await admin.describeConfigs({ includeSynonyms: false, resources: [{ type, name: topic }] })
      return resources[0].configEntries.find((e) => e.configName === name).configValue
    }
    const set = (configEntries) =>
      admin.alterConfigs({ validateOnly: false, resources: [{ type, name: topic, configEntries }] })
    assert.equal(await get('retention.ms'), '123456789')
    await set([{ name: 'max.message.bytes', value: '54321' }])
    await until('the new value', 5, async () => (await get('max.message.bytes')) === '54321')
    assert.equal(await get('retention.ms'), '604800000', 'AlterConfigs replaces all')
    await refused('INVALID_CONFIG', () => set([{ name: 'retention.ms', value: 'soon' }]))
  })
}

async function adminDeleteRecords() {
  const topic = await makeTopic('cut', 1)
  await produce(topic, 1, 100)
  await withAdmin(async (admin) => {
    // It looks for the leader in what it knows of the topic by then.
    await admin.fetchTopicOffsets(topic)
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '40' }] })
    const [ends] = await admin.fetchTopicOffsets(topic)
    assert.equal(ends.low, '40')
  })
  const seen = await readAll(topic, 60)
  assert(seen.has('0@40') && !seen.has('0@39'))
}

async function adminGroups() {
  const topic = await makeTopic('groups', 2)
  const groupId = unique('group')
  await produce(topic, 2, 20)
  const seen = new Map()
  const member = await join(groupId, topic, seen)
  await withAdmin(async (admin) => {
    await until('20 records', 30, () => seen.size === 20)
    assert((await admin.listGroups()).groups.some((g) => g.groupId === groupId), 'not listed')
    const [described] = (await admin.describeGroups([groupId])).groups
    assert.equal(described.state, 'Stable')
    assert.equal(described.members.length, 1)
    await refused('NON_EMPTY_GROUP', () => admin.deleteGroups([groupId]))
    await member.leave()
    const [after] = (await admin.describeGroups([groupId])).groups
    assert.equal(after.state, 'Empty')
    const committed = async () => {
      const [{ partitions }] = await admin.fetchOffsets({ groupId, topics: [topic] })
      return partitions.find((p) => p.partition === 0).offset
    }
    assert.equal(await committed(), '10')
    await admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '3' }] })
    assert.equal(await committed(), '3')
    await admin.deleteGroups([groupId])
    assert((await admin.listGroups()).groups.every((g) => g.groupId !== groupId), 'still listed')
  })
}

// The broker ends and comes back while a producer and a group run: nothing is lost.
async function restart(hard) {
  const count = 2000
  const topic = await makeTopic('restart', 2)
  const seen = new Map()
  const member = await join(unique('group'), topic, seen, {}, patient)
  const write = async (producer) => {
    const writing = (async () => {
      for (let i = 0; i < count; i += 4) {
        const messages = [0, 1, 2, 3].map((j) => ({ partition: j % 2, value: String(i + j) }))
        await producer.send({ topic, messages })
        await sleep(3)
      }
    })()
    await until('the first 300 records', 60, () => seen.size > 300)
    console.log(`RESTART ${hard ? 'hard' : 'soft'}`)
    assert(!(await input.next()).done, 'nobody restarts the broker')
    await writing
  }
  await withProducer({ idempotent: true }, write, patient)
  for (const [place, { message }] of await readAll(topic, count)) {
    const [partition, offset] = place.split('@').map(Number)
    assert.equal(message.value.toString(), String(offset * 2 + partition), `value at ${place}`)
  }
  await until('all records in the group', 90, () => seen.size === count)
  await member.leave()
}

const checks = new Map()
const codecs = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD }
for (const [codec, type] of Object.entries(codecs)) {
  for (const [name, acks] of [['0', 0], ['1', 1], ['all', -1]]) {
    checks.set(`produce/${codec}/acks=${name}`, () => roundTrip(type, acks))
  }
}
for (const [name, check] of Object.entries({
  idempotent, transactional_id: transactionalId, auto_create: autoCreate, odd_records: oddRecords,
  too_large: tooLarge, group_rebalance: groupRebalance, group_resume: groupResume, seek_by_time: seekByTime,
  long_poll: longPoll, admin_cluster: adminCluster, admin_topics: adminTopics, admin_configs: adminConfigs,
  admin_delete_records: adminDeleteRecords, admin_groups: adminGroups,
  restart_soft: () => restart(false), restart_hard: () => restart(true),
})) checks.set(name, check)

let good = true
for (const [name, check] of checks) {
  if (wanted.length > 0 && !wanted.includes(name)) continue
  const began = Date.now()
  let problem = ''
  try {
    await check()
  } catch (error) {
    problem = ` ${error.stack ?? error}`.replaceAll(/\s+/g, ' ').slice(0, 600)
    good = false
  }
  console.log(`${problem ? 'FAIL' : 'PASS'} ${name} ${((Date.now() - began) / 1000).toFixed(1)}${problem}`)
}
process.exit(good ? 0 : 1)
