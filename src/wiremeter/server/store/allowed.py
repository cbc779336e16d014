"""What SQL of users may name: tables, functions, and keywords that stand before a parenthesis."""

from __future__ import annotations

from wiremeter.server.store.schema import HOUR, MINUTE, ROLLUP_DIMENSIONS, rollup_name
from wiremeter.shipment.schema import TABLES as SHIPPED


def _words(*texts: str) -> list[str]:
    return [word for text in texts for word in text.split()]


#: Tables that may be read.
TABLES: frozenset[str] = frozenset(
    {*SHIPPED, "batches", "agents", *(rollup_name(kind, size) for kind in ROLLUP_DIMENSIONS for size in (MINUTE, HOUR))}
)

_AGGREGATES = """
    count sum min max avg any anyLast argMin argMax uniq uniqExact uniqCombined uniqHLL12 median quantile quantiles
    quantileExact quantileTDigest quantilesTDigest stddevPop stddevSamp varPop varSamp covarPop corr groupArray
    groupUniqArray topK topKWeighted first_value last_value sumMap deltaSum skewPop kurtPop simpleLinearRegression
    groupBitOr groupBitAnd groupBitXor sumWithOverflow entropy
"""
_WINDOW = "row_number rank dense_rank percent_rank ntile lagInFrame leadInFrame lag lead nth_value"
_CONDITIONS = """
    if multiIf coalesce ifNull nullIf isNull isNotNull assumeNotNull toNullable isNaN isFinite isInfinite
    isZeroOrNull exists and or not xor equals notEquals less greater lessOrEquals greaterOrEquals in notIn
"""
_NUMBERS = """
    plus minus multiply divide intDiv intDivOrZero modulo moduloOrZero negate abs sign floor ceil ceiling round
    trunc roundBankers sqrt cbrt exp exp2 exp10 log log2 log10 ln pow power least greatest bitAnd bitOr bitXor
    bitNot bitShiftLeft bitShiftRight bitTest bitTestAny bitTestAll bitCount pi gcd lcm widthBucket
"""
_TEXT = """
    length lengthUTF8 empty notEmpty lower upper lowerUTF8 upperUTF8 concat concatWithSeparator substring substr mid
    left right leftUTF8 rightUTF8 substringUTF8 trim trimLeft trimRight trimBoth ltrim rtrim startsWith endsWith
    position positionCaseInsensitive locate like notLike ilike notILike match extract replaceOne replaceAll
    replaceRegexpOne replaceRegexpAll replace splitByChar splitByString arrayStringConcat reverse ascii char hex
    unhex hasToken multiSearchAny cutToFirstSignificantSubdomain firstSignificantSubdomain domainWithoutWWW
    topLevelDomain domain path countSubstrings formatReadableSize formatReadableQuantity formatReadableTimeDelta
    formatReadableDecimalSize cityHash64 sipHash64 xxHash64
"""
_TIMES = """
    now now64 today yesterday toDate toDate32 toDateTime toDateTime64 toUnixTimestamp toUnixTimestamp64Milli
    toUnixTimestamp64Micro toUnixTimestamp64Nano fromUnixTimestamp fromUnixTimestamp64Milli fromUnixTimestamp64Micro
    fromUnixTimestamp64Nano toStartOfSecond toStartOfMinute toStartOfFiveMinutes toStartOfTenMinutes
    toStartOfFifteenMinutes toStartOfHour toStartOfDay toStartOfWeek toMonday toStartOfMonth toStartOfQuarter
    toStartOfYear toStartOfInterval toYear toQuarter toMonth toDayOfMonth toDayOfWeek toDayOfYear toHour toMinute
    toSecond toYYYYMM toYYYYMMDD toYYYYMMDDhhmmss toISOWeek toWeek dateDiff date_diff dateAdd date_add dateSub
    date_sub date_trunc dateTrunc addSeconds addMinutes addHours addDays addWeeks addMonths addYears subtractSeconds
    subtractMinutes subtractHours subtractDays subtractWeeks subtractMonths subtractYears toIntervalNanosecond
    toIntervalMicrosecond toIntervalMillisecond toIntervalSecond toIntervalMinute toIntervalHour toIntervalDay
    toIntervalWeek toIntervalMonth toIntervalQuarter toIntervalYear formatDateTime toTimeZone timeSlot
    parseDateTimeBestEffort parseDateTime64BestEffort age
"""
_ADDRESSES = """
    toIPv4 toIPv6 toIPv4OrNull toIPv6OrNull toIPv4OrDefault toIPv6OrDefault IPv4NumToString IPv4StringToNum
    IPv6NumToString IPv6StringToNum IPv4ToIPv6 isIPv4String isIPv6String isIPAddressInRange IPv4CIDRToRange
    IPv6CIDRToRange cutIPv6
"""
_CONVERSIONS = """
    CAST accurateCast accurateCastOrNull toString toFixedString toUInt8 toUInt16 toUInt32 toUInt64 toInt8 toInt16
    toInt32 toInt64 toInt128 toUInt128 toFloat32 toFloat64 toDecimal32 toDecimal64 toBool toUInt8OrNull
    toUInt16OrNull toUInt32OrNull toUInt64OrNull toInt64OrNull toFloat64OrNull toUInt64OrZero toInt64OrZero
    toFloat64OrZero toUUID toTypeName bin reinterpretAsUInt64
"""
_ARRAYS = """
    array tuple tupleElement arrayElement has hasAny hasAll indexOf countEqual arrayCount arrayExists arrayAll
    arrayFilter arrayMap arrayFirst arrayLast arraySum arrayMin arrayMax arrayAvg arraySort arrayReverseSort
    arrayReverse arrayDistinct arrayUniq arrayConcat arraySlice arrayJoin arrayZip arrayEnumerate mapKeys mapValues
    mapContains map JSONExtractString JSONExtractInt JSONExtractUInt JSONExtractFloat JSONExtractBool JSONExtractRaw
    JSONHas JSONLength JSONExtractArrayRaw JSONExtractKeys isValidJSON
"""
_TYPES = """
    Nullable LowCardinality Array Tuple Map FixedString Decimal Decimal32 Decimal64 DateTime DateTime64 Enum8 Enum16
"""


#: Functions and types that may stand before a parenthesis, in lower case. Each computes from its arguments alone, and
#: none makes much out of little: no range(), no repeat(), nothing that sleeps.
FUNCTIONS: frozenset[str] = frozenset(
    name.lower()
    for name in (
        *_words(_AGGREGATES, _WINDOW, _CONDITIONS, _NUMBERS, _TEXT, _TIMES, _ADDRESSES, _CONVERSIONS, _ARRAYS, _TYPES),
        *(f"{name}If" for name in _words(_AGGREGATES)),
    )
)

#: Keywords, in upper case.
KEYWORDS: frozenset[str] = frozenset(
    _words("""
    SELECT FROM WHERE PREWHERE HAVING QUALIFY BY AND OR NOT IN GLOBAL AS ON USING OVER WHEN THEN ELSE CASE JOIN LIKE
    ILIKE BETWEEN IS DISTINCT UNION ALL EXCEPT INTERSECT ANY WITH LIMIT OFFSET REPLACE ROLLUP CUBE SETS WINDOW DIV MOD
""")
)
#: Words, in upper case, that no query needs outside of quotes: they write, or change settings or the answer's form.
FORBIDDEN: frozenset[str] = frozenset(
    _words("""
    INTO OUTFILE INFILE SETTINGS FORMAT TRUNCATE APPEND COMPRESSION EXPLAIN DESCRIBE SHOW SET USE KILL SYSTEM ATTACH
    DETACH INSERT CREATE ALTER DROP RENAME GRANT REVOKE OPTIMIZE EXCHANGE BACKUP RESTORE UPDATE DELETE EXECUTE PARALLEL
    RECURSIVE FINAL SAMPLE APPLY COLUMNS
""")
)
