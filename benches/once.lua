-- For wrk: each line of a file is asked with once. What comes before it in the body and what
-- after it are the other arguments.
--
--   wrk --script benches/once.lua URL -- FILE BEFORE AFTER
--
-- Prints how many were answered a second, and fails where one was not answered with 2xx or
-- where the file has too few lines.

local lines, before, after
local headers = { ["content-type"] = "application/x-www-form-urlencoded" }

function init(arguments)
    lines = assert(io.open(arguments[1]))
    before, after = arguments[2], arguments[3]
end

function request()
    -- (Whatever an error in here is, wrk says so and goes on.)
    local line = lines:read("*l") or "no-line-is-left"
    return wrk.format("POST", nil, headers, before .. line .. after)
end

function done(summary)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    if failed > 0 then
        io.stderr:write(failed, " were not answered as they should be\n")
        os.exit(1)
    end
    io.stderr:write(string.format("%.0f\n", summary.requests / summary.duration * 1e6))
end
