//go:build linux

package foreign

// registers are those of nf_tables: four of 16 bytes, which are also sixteen of 4. What no expression has written in the present rule is not known.
type registers struct {
	bytes [64]byte
	known [64]bool
}

// The numbers that registers have (enum nft_registers).
const (
	firstLong, lastLong   = 1, 4
	firstShort, lastShort = 8, 23
	long, short           = 16, 4
)

// at returns where a register begins, -1 for none.
func at(register uint32) int {
	switch {
	case register >= firstLong && register <= lastLong:
		return int(register-firstLong) * long
	case register >= firstShort && register <= lastShort:
		return int(register-firstShort) * short
	}
	return -1
}

// store writes a value, and zeroes up to the next short register. Nil makes the whole long register one that is not known.
func (r *registers) store(register uint32, value []byte) {
	from := at(register)
	if from < 0 {
		return
	}
	if value == nil {
		for i := from; i < min(from+long, len(r.bytes)); i++ {
			r.known[i] = false
		}
		return
	}
	for i := 0; i < (len(value)+short-1)/short*short && from+i < len(r.bytes); i++ {
		r.bytes[from+i], r.known[from+i] = 0, true
		if i < len(value) {
			r.bytes[from+i] = value[i]
		}
	}
}

// load reads a value, nil when it is not known.
func (r *registers) load(register uint32, length int) []byte {
	from := at(register)
	if from < 0 || length <= 0 || from+length > len(r.bytes) {
		return nil
	}
	for _, known := range r.known[from : from+length] {
		if !known {
			return nil
		}
	}
	return r.bytes[from : from+length]
}
