-- ARGV: queue id, job id, token, lease (ms), lease at the delivery (ms)
-- Makes the lease of a delivery longer that was passed on to a worker, unless it has begun there
-- already: then the lease is not the one of the delivery any more. Answers 1, or 0.
local member = lease(ARGV[1], ARGV[2], ARGV[3])
local lasting = redis.call('ZSCORE', base .. 'a', member)
if not lasting or tonumber(lasting) ~= tonumber(ARGV[3]) + tonumber(ARGV[5]) * 1000 then
  return 0
end
redis.call('ZADD', base .. 'a', text(now + tonumber(ARGV[4]) * 1000), member)
return 1
