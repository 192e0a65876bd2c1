//go:build linux

package main

import (
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	microvm "github.com/tangle-network/microvm-runtime"
)

const (
	driveUsage = "PATH[,ro][,LIMIT...]: a disk beside the machine's own, its alone until it is destroyed or, with ro, shared; repeatable"
	limitUsage = "bps=N, iops=N, bps-burst=N, iops-burst=N, with commas: bound the machine's own disks; N may end in K, M, G or T"
)

// parseDrive parses PATH[,ro][,LIMIT...].
func parseDrive(text string) (microvm.Drive, error) {
	path, options, more := strings.Cut(text, ",")
	absolute, err := filepath.Abs(path)
	if err != nil || !more {
		return microvm.Drive{Path: absolute}, err
	}
	drive := microvm.Drive{Path: absolute}
	var limits []string
	for option := range strings.SplitSeq(options, ",") {
		if option == "ro" {
			drive.ReadOnly = true
		} else {
			limits = append(limits, option)
		}
	}
	if len(limits) > 0 {
		drive.Limit, err = parseLimit(strings.Join(limits, ","))
	}
	if err != nil {
		err = usageError{fmt.Errorf("--drive %s: %w", text, err)}
	}
	return drive, err
}

// parseLimit parses NAME=NUMBER with commas between.
func parseLimit(text string) (*microvm.RateLimit, error) {
	var limit microvm.RateLimit
	fields := map[string]*int64{"bps": &limit.BytesPerSecond, "bps-burst": &limit.BytesBurst, "iops": &limit.OpsPerSecond, "iops-burst": &limit.OpsBurst}
	for option := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(option, "=")
		field := fields[name]
		if field == nil {
			return nil, usageError{fmt.Errorf("%q is no option (ro, bps=N, iops=N, bps-burst=N, iops-burst=N)", option)}
		}
		n, err := parseNumber(value)
		if err != nil {
			return nil, usageError{fmt.Errorf("%s: %w", option, err)}
		}
		*field = n
	}
	return &limit, nil
}

// parseNumber parses a whole number that may end in K, M, G or T: powers of 1024.
func parseNumber(text string) (int64, error) {
	digits := strings.TrimRight(text, "KMGT")
	shift := 0
	if suffix := text[len(digits):]; suffix != "" {
		shift = 10 * (1 + strings.Index("KMGT", suffix))
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || len(text)-len(digits) > 1 || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q is no whole number, such as 500 or 10M", text)
	}
	return n << shift, nil
}
