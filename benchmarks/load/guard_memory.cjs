'use strict'

// node --expose-gc guard_memory.cjs PLUGIN URL SECRET COUNT: what the plugin keeps in memory once it has heard of COUNT
// ended sessions. Says "ready" when it follows the feed, and then bytes of heap before and after as JSON.

const [plugin, url, secret, count] = process.argv.slice(2)
const SessionGuard = require(plugin)

const logger = { info: (topic, text) => text.startsWith('following') && begin(), warn () {}, error () {} }
const guard = new SessionGuard({ url, secret }, { logger })
let before

function begin () {
  if (before !== undefined) return
  before = heap()
  console.log('ready')
}

function heap () {
  global.gc()
  return process.memoryUsage().heapUsed
}

guard.whenReady()
setInterval(() => {
  if (guard.ended.size < Number(count)) return
  console.log(JSON.stringify({ before, after: heap() }))
  process.exit()
}, 50)
