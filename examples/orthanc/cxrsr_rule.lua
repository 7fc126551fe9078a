-- Orthanc upscales each chest radiograph that it gets: a rule in Lua.
--
-- Install beside cxrsr_series.py, which says what is done and what happens on failure:
--
--   install -m 644 cxrsr_rule.lua cxrsr_series.py /etc/orthanc/
--   install -d -m 700 -o orthanc -g orthanc /var/lib/orthanc/cxrsr
--
-- and in Orthanc's configuration: "LuaScripts": ["/etc/orthanc/cxrsr_rule.lua"]. Set CXRSR_COMMAND
-- and the other variables that cxrsr_series.py names in Orthanc's environment, such as by
-- `systemctl edit orthanc`; CXRSR_SERIES if it lies elsewhere than in /etc/orthanc; ORTHANC_USERNAME
-- and ORTHANC_PASSWORD if Orthanc has users.
--
-- Orthanc runs one line of Lua at a time, for every image that comes in as well. So the rule only
-- starts a process, which does not hold Orthanc up, and ends by itself. Its log is SPOOL/log.

local function quoted(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function variable(name, default)
    local value = os.getenv(name)
    if value == nil or value == "" then
        return default
    end
    return value
end

function OnStableSeries(series, tags, metadata)
    if tags.Modality ~= "CR" and tags.Modality ~= "DX" then
        return
    end
    local script = variable("CXRSR_SERIES", "/etc/orthanc/cxrsr_series.py")
    local log = variable("CXRSR_SPOOL", "/var/lib/orthanc/cxrsr") .. "/log"
    local port = string.format("%d", GetOrthancConfiguration().HttpPort or 8042)
    local url = variable("ORTHANC_URL", "http://127.0.0.1:" .. port)
    local command = "ORTHANC_URL=" .. quoted(url)
        .. " setsid --fork python3 " .. quoted(script) .. " " .. quoted(series)
    local started = os.execute(command .. " </dev/null >>" .. quoted(log) .. " 2>&1")
    if started ~= true and started ~= 0 then -- a number in Lua 5.1
        print("cxrsr: cannot start cxrsr_series.py for series " .. series)
    end
end
