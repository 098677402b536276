-- ARGV: queue id, job id. Answers {state, requeues remaining, jobs before it, ms to its next
-- event: the queue's next release, or the end of the lease}; nothing where it is unknown.
local id, job = ARGV[1], ARGV[2]
local place, remaining, token = record(id, job)
local function ahead(time) return text(math.max(0, math.ceil((tonumber(time) - now) / 1000))) end
if not place then
  if redis.call('ZSCORE', base .. 'd', id .. ':' .. job) then return {'dead', '0', 0, '0'} end
  return {}
elseif token == '' then
  return {'queued', remaining, redis.call('ZRANK', base .. 'q:' .. id, job),
    ahead(redis.call('ZSCORE', base .. 'r', id))}
end
return {'active', remaining, 0, ahead(redis.call('ZSCORE', base .. 'a', lease(id, job, token)))}
