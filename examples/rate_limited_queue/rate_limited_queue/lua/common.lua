-- What every script begins with. KEYS[1] is the base of all keys of one queue type,
-- "<key_prefix>:{<type>}:", whose braces keep them on one node of a cluster.
--
--   r        sorted set: queue id -> the time in µs at which it may release its next job;
--            a queue id is in it exactly while it has waiting jobs
--   q:<id>   sorted set: waiting job ids by their place
--   j:<id>   hash: job id -> "place:requeues remaining:token:rank:run", waiting and active jobs;
--            the token is empty while the job waits; the rank is the least that the next run of
--            this delivery must have to begin, and the run who began last (neither over HTTP)
--   p:<id>   hash: job id -> payload
--   s:<id>   hash: i interval (ms), l last release or beginning of work (µs), b last beginning
--            of work (µs), q last place given, h held until (µs) and t the token that holds it
--   a        sorted set: "<id>:<job>:<token>" -> the end of the lease in µs
--   d, D     dead jobs: sorted set "<id>:<job>" by time, and hash of their records
--   m:<min>  hash: counters of one minute; e, d for the type, e:<id>, d:<id> for a queue id
--   n        hash: totals of the type; e, d, f, x (dead), r (requeued), w (waiting now)
--   w        channel on which a new earliest release time is announced
local base = KEYS[1]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])

-- Redis would write a number of more than 14 digits with an exponent.
local function text(number) return string.format('%.0f', number) end

local function count(kind, id)
  local key = base .. 'm:' .. text(now - now % 60000000)
  if redis.call('HINCRBY', key, kind, 1) == 1 then redis.call('EXPIRE', key, 900) end
  redis.call('HINCRBY', key, kind .. ':' .. id, 1)
  redis.call('HINCRBY', base .. 'n', kind, 1)
end

local function fields(text)
  return string.match(text, '^(%d+):(%-?%d+):(%d*):?(%d*):?(%w*)$')
end

-- The job's place, requeues remaining, token, rank and run; nothing where there is no such job.
local function record(id, job)
  local found = redis.call('HGET', base .. 'j:' .. id, job)
  if found then return fields(found) end
end

-- Notes who has a job: a delivery's token ('': it waits), the least rank of its next run, the run.
local function note(id, job, place, remaining, token, rank, run)
  local last = rank and ':' .. rank .. ':' .. (run or '') or ''
  redis.call('HSET', base .. 'j:' .. id, job, place .. ':' .. remaining .. ':' .. token .. last)
end

local function lease(id, job, token) return id .. ':' .. job .. ':' .. token end

-- The first moment, from now on, at which the queue may release.
local function next_release(id)
  local state = redis.call('HMGET', base .. 's:' .. id, 'i', 'l', 'h')
  local at = now
  if state[2] then at = math.max(at, tonumber(state[2]) + tonumber(state[1]) * 1000) end
  if state[3] then at = math.max(at, tonumber(state[3])) end
  return at
end

-- Sets when the queue releases next, and tells those who wait if it is the first of all.
local function line_up(id, at)
  redis.call('ZADD', base .. 'r', text(at), id)
  if redis.call('ZRANGE', base .. 'r', 0, 0)[1] == id then
    redis.call('PUBLISH', base .. 'w', text(at))
  end
end

-- Lines a waiting queue up anew after its interval or its hold has changed.
local function line_up_again(id)
  local state = redis.call('HMGET', base .. 's:' .. id, 'i', 'l', 'h')
  local at = redis.call('ZSCORE', base .. 'r', id)
  if not at then return end
  if state[2] then at = tonumber(state[2]) + tonumber(state[1]) * 1000 end
  if state[3] then at = math.max(tonumber(at), tonumber(state[3])) end
  line_up(id, tonumber(at))
end

-- Lets work of a queue begin now, or answers false. The release of the delivery with this token is
-- no beginning; another one that was released and has not begun comes first. With the beginning its
-- hold ends, and the interval counts from here.
local function start(id, token)
  local key = base .. 's:' .. id
  local state = redis.call('HMGET', key, 'i', 'l', 'b', 'h', 't')
  if state[4] and state[5] ~= token and tonumber(state[4]) > now then return false end
  local last = state[2]
  if last == token then last = state[3] end
  if last and tonumber(last) + tonumber(state[1]) * 1000 > now then return false end
  redis.call('HSET', key, 'l', text(now), 'b', text(now))
  if state[5] == token then redis.call('HDEL', key, 'h', 't') end
  line_up_again(id)
  return true
end

-- Ends the hold that the delivery with this token has on its queue.
local function end_hold(id, token)
  local key = base .. 's:' .. id
  if redis.call('HGET', key, 't') == token then
    redis.call('HDEL', key, 'h', 't')
    line_up_again(id)
  end
end

-- Keeps of a queue without jobs nothing but the mark of its last release, while that matters.
local function forget_if_empty(id)
  if redis.call('EXISTS', base .. 'j:' .. id) == 1 then return end
  local key = base .. 's:' .. id
  local state = redis.call('HMGET', key, 'i', 'l')
  if state[1] and state[2] then
    local at = tonumber(state[2]) + tonumber(state[1]) * 1000
    if at > now then
      redis.call('PEXPIREAT', key, text(math.ceil(at / 1000)))
      return
    end
  end
  redis.call('DEL', key)
end

-- Gives an active job its old place among the waiting ones.
local function put_back(id, job, place, remaining)
  note(id, job, place, remaining, '')
  redis.call('ZADD', base .. 'q:' .. id, place, job)
  redis.call('HINCRBY', base .. 'n', 'w', 1)
  if not redis.call('ZSCORE', base .. 'r', id) then line_up(id, next_release(id)) end
end

-- Puts an active job back whose work may not begin yet, as it is now. Its release was none.
local function send_back(id, job, place, remaining, token, payload)
  local key = base .. 's:' .. id
  local state = redis.call('HMGET', key, 'l', 'b', 't')
  if state[1] == token then
    if state[2] then redis.call('HSET', key, 'l', state[2]) else redis.call('HDEL', key, 'l') end
  end
  if state[3] == token then redis.call('HDEL', key, 'h', 't') end
  redis.call('ZREM', base .. 'a', lease(id, job, token))
  redis.call('HSET', base .. 'p:' .. id, job, payload)
  put_back(id, job, place, remaining)
  line_up_again(id)
end
