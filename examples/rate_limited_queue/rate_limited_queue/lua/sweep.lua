-- ARGV: queue id, key that purge.lua answered, cursor. Removes the leases of purged jobs, in
-- chunks; tokens tell them from those of new jobs with the same ids. Answers the next cursor.
local page = redis.call('HSCAN', ARGV[2], ARGV[3], 'COUNT', 500)
for index = 1, #page[2], 2 do
  local _, _, token = fields(page[2][index + 1])
  if token ~= '' then
    redis.call('ZREM', base .. 'a', lease(ARGV[1], page[2][index], token))
  end
end
if page[1] == '0' then redis.call('UNLINK', ARGV[2]) end
return page[1]
