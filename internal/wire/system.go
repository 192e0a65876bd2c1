package wire

import (
	"strings"
	"time"
)

// Clock is the body of POST PathClock.
type Clock struct {
	Unix time.Duration `json:"unix_ns"` // CLOCK_REALTIME from now on. Not negative.
}

// Skew is the answer to one.
type Skew struct {
	Skew time.Duration `json:"skew_ns"` // How far the guest's clock was ahead.
}

// Entropy is the body of POST PathEntropy.
type Entropy struct {
	Data []byte `json:"data"` // At most MaxEntropy bytes, each of 8 random bits that nobody else has.
}

// MaxEntropy bounds it: far more than the kernel's generator holds.
const MaxEntropy = 4096

// Hostname is the body of POST PathHostname.
type Hostname struct {
	Name string `json:"name"` // See ValidHostname.
}

// ValidHostname says whether a name is 1 to 64 of a–z, A–Z, 0–9, - and ., and begins and ends with neither - nor a dot.
func ValidHostname(name string) bool {
	return len(name) >= 1 && len(name) <= 64 && strings.Trim(name, "-.") == name && strings.IndexFunc(name, func(r rune) bool { return !isLetter(r) && r != '-' && r != '.' }) < 0
}
