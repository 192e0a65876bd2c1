//go:build linux

package main

import (
	"fmt"
	"path/filepath"
	"strings"

	microvm "github.com/tangle-network/microvm-runtime"
)

const driveUsage = "PATH[,ro]: a disk beside the machine's own, its own until it is destroyed or, with ro, shared; repeatable"

// parseDrive parses PATH[,ro].
func parseDrive(text string) (microvm.Drive, error) {
	path, options, _ := strings.Cut(text, ",")
	absolute, err := filepath.Abs(path)
	if err != nil {
		return microvm.Drive{}, err
	}
	drive := microvm.Drive{Path: absolute}
	for option := range strings.SplitSeq(options, ",") {
		switch {
		case option == "ro":
			drive.ReadOnly = true
		case option != "" || strings.Contains(text, ","):
			return drive, usageError{fmt.Errorf("--drive %s: %q is no option (ro)", text, option)}
		}
	}
	return drive, nil
}
