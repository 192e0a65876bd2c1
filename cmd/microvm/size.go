//go:build linux

package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// mebibytes is a flag's value: a number of MiB, or a size with a unit, as Docker has them.
type mebibytes struct{ n *int }

func (m mebibytes) String() string {
	if m.n == nil || *m.n == 0 {
		return ""
	}
	return strconv.Itoa(*m.n)
}

func (mebibytes) Type() string { return "MiB" }

// Set parses 512, 512m, 2g, 2GiB. What is no whole number of MiB is rounded up.
func (m mebibytes) Set(text string) error {
	number := strings.TrimRight(strings.ToLower(text), "abcdefghijklmnopqrstuvwxyz")
	unit, ok := map[string]uint64{"": 1 << 20, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}[strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(text[len(number):]), "b"), "i")]
	n, err := strconv.ParseUint(number, 10, 31)
	if err != nil || !ok || n > math.MaxInt32*(1<<20)/unit {
		return fmt.Errorf("%q is no size: a number of MiB, or one with a unit, as 512m or 2g", text)
	}
	*m.n = int((n*unit + 1<<20 - 1) >> 20)
	return nil
}

// processors is a flag's value: a whole number of virtual CPUs. Docker's may be parts of one.
type processors struct{ n *int }

func (p processors) String() string {
	if p.n == nil || *p.n == 0 {
		return ""
	}
	return strconv.Itoa(*p.n)
}

func (processors) Type() string { return "int" }

func (p processors) Set(text string) (err error) {
	if *p.n, err = strconv.Atoi(text); err != nil {
		return fmt.Errorf("%q is no whole number of virtual CPUs", text)
	}
	return nil
}
