package microvm

import (
	"fmt"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxVCPUs       = 32 // Firecracker's MAX_SUPPORTED_VCPUS
	maxMemoryMiB   = 1 << 20
	minLayerMiB    = 16
	maxLayerMiB    = 1 << 24 // ext4's 16 TiB with 4 KiB blocks
	maxKernelArgs  = 1024    // half of the 2048 bytes that Linux keeps on x86_64
	maxPath        = 4095
	maxDrives      = 8
	minBytesRate   = 4096 // one block a second
	maxBytesRate   = 1 << 40
	maxOpsRate     = 1e9
	maxName        = 64
	maxLabels      = 64
	maxLabelKey    = 63
	maxLabelValue  = 256
	maxImageName   = 255
	imageRule      = "at most 255 of A-Z a-z 0-9 . _ - / : @, beginning with a letter or a digit"
	nameRule       = "must be 1 to 64 of A-Z a-z 0-9 . _ -, not starting with . or -"
	labelKeyRule   = "keys must be 1 to 63 of A-Z a-z 0-9 . _ - /"
	labelValueRule = "values must be at most 256 bytes of printable UTF-8"
)

// ValidateName says whether a name may be given to a machine: nil, or a *[FieldError].
func ValidateName(name string) error {
	bad := name == "" || len(name) > maxName || name[0] == '.' || name[0] == '-'
	if bad || strings.IndexFunc(name, func(r rune) bool { return !nameRune(r) }) >= 0 {
		return &FieldError{Field: "name", Value: name, Reason: nameRule}
	}
	return nil
}

// imageName says whether a text may be the name of an image, such as "debian:12", or its digest. What it means is the driver's part.
func imageName(text string) bool {
	other := func(r rune) bool { return !nameRune(r) && r != '/' && r != ':' && r != '@' }
	return len(text) <= maxImageName && strings.IndexFunc(text, other) < 0 && !strings.ContainsAny(text[:1], "./_-:@")
}

func nameRune(r rune) bool {
	return r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
}

// Validate says whether the spec makes sense by itself: nil, or a *[FieldError] for the first bad field.
// It does not look at the host; that is the driver's part of Create.
func (s *Spec) Validate() error {
	for _, check := range []func() *FieldError{s.checkSize, s.checkFiles, s.checkRoot, s.checkLimit, s.checkDrives, s.checkNetwork, s.checkArgs, s.checkLabels} {
		if bad := check(); bad != nil {
			return bad
		}
	}
	return nil
}

func (s *Spec) checkSize() *FieldError {
	switch {
	case s.VCPUs < 0 || s.VCPUs > maxVCPUs:
		return bad("VCPUs", s.VCPUs, fmt.Sprintf("must be 1 to %d, or 0 for the default", maxVCPUs))
	case s.MemoryMiB < 0 || s.MemoryMiB > maxMemoryMiB:
		return bad("MemoryMiB", s.MemoryMiB, fmt.Sprintf("must be 1 to %d, or 0 for the default", maxMemoryMiB))
	case s.LayerMiB != 0 && (s.LayerMiB < minLayerMiB || s.LayerMiB > maxLayerMiB):
		return bad("LayerMiB", s.LayerMiB, fmt.Sprintf("must be %d to %d, or 0 for the default", minLayerMiB, maxLayerMiB))
	case s.RootfsMiB < 0 || s.RootfsMiB > maxLayerMiB:
		return bad("RootfsMiB", s.RootfsMiB, fmt.Sprintf("must be 1 to %d, or 0 for the size of Rootfs", maxLayerMiB))
	}
	return nil
}

func (s *Spec) checkFiles() *FieldError {
	if reason := badPath(s.Initrd); s.Initrd != "" && reason != "" {
		return bad("Initrd", s.Initrd, reason)
	}
	if reason := badPath(s.Image); s.Image != "" && reason != "" && !imageName(s.Image) {
		return bad("Image", s.Image, reason+", or an image's name: "+imageRule)
	}
	for _, file := range []struct{ field, path string }{{"Kernel", s.Kernel}, {"Rootfs", s.Rootfs}} {
		if reason := badPath(file.path); file.path != "" && reason != "" && ValidateName(file.path) != nil {
			return bad(file.field, file.path, reason+", or a name: "+nameRule)
		}
	}
	return nil
}

// badPath says what is wrong with a path, "" when nothing is.
func badPath(path string) string {
	switch {
	case len(path) > maxPath:
		return fmt.Sprintf("must be at most %d bytes", maxPath)
	case strings.ContainsRune(path, 0):
		return "must not contain a NUL byte"
	case !filepath.IsAbs(path):
		return "must be an absolute path"
	}
	return ""
}

func (s *Spec) checkDrives() *FieldError {
	if len(s.Drives) > maxDrives {
		return bad("Drives", len(s.Drives), fmt.Sprintf("must be at most %d", maxDrives))
	}
	seen := map[string]bool{} // path to whether it is read-only
	for i, drive := range s.Drives {
		if reason := badPath(drive.Path); reason != "" {
			return bad("Drives", drive.Path, fmt.Sprintf("the path of drive %d %s", i, reason))
		}
		if readOnly, ok := seen[drive.Path]; ok && !(readOnly && drive.ReadOnly) {
			return bad("Drives", drive.Path, fmt.Sprintf("drive %d is another drive too, and one of them is writable", i))
		}
		if reason := drive.Limit.bad(); reason != "" {
			return bad("Drives", drive.Path, fmt.Sprintf("the limit of drive %d: %s", i, reason))
		}
		seen[drive.Path] = drive.ReadOnly
	}
	return nil
}

func (s *Spec) checkLimit() *FieldError {
	if reason := s.DiskLimit.bad(); reason != "" {
		return bad("DiskLimit", *s.DiskLimit, reason)
	}
	if s.DiskLimit != nil && s.Diskless {
		return bad("DiskLimit", *s.DiskLimit, "needs Image or Rootfs")
	}
	return nil
}

// bad says what is wrong with a limit, "" when nothing is.
func (l *RateLimit) bad() string {
	switch {
	case l == nil:
	case l.BytesPerSecond != 0 && (l.BytesPerSecond < minBytesRate || l.BytesPerSecond > maxBytesRate):
		return fmt.Sprintf("BytesPerSecond must be %d to %d, or 0 for no limit", minBytesRate, int64(maxBytesRate))
	case l.BytesBurst < 0 || l.BytesBurst > maxBytesRate || l.BytesBurst > 0 && l.BytesPerSecond == 0:
		return fmt.Sprintf("BytesBurst must be 0 to %d, and needs BytesPerSecond", int64(maxBytesRate))
	case l.OpsPerSecond < 0 || l.OpsPerSecond > maxOpsRate:
		return fmt.Sprintf("OpsPerSecond must be 1 to %d, or 0 for no limit", int64(maxOpsRate))
	case l.OpsBurst < 0 || l.OpsBurst > maxOpsRate || l.OpsBurst > 0 && l.OpsPerSecond == 0:
		return fmt.Sprintf("OpsBurst must be 0 to %d, and needs OpsPerSecond", int64(maxOpsRate))
	}
	return ""
}

func (s *Spec) checkRoot() *FieldError {
	switch {
	case s.Image != "" && s.Rootfs != "":
		return bad("Rootfs", s.Rootfs, "can't be set together with Image")
	case s.Diskless && (s.Image != "" || s.Rootfs != ""):
		return bad("Diskless", s.Diskless, "can't be set together with Image or Rootfs")
	case s.RootfsWritable && s.Rootfs == "":
		return bad("RootfsWritable", s.RootfsWritable, "needs Rootfs")
	case s.RootfsMiB != 0 && !s.RootfsWritable:
		return bad("RootfsMiB", s.RootfsMiB, "needs RootfsWritable")
	case s.LayerMiB != 0 && (s.Rootfs != "" || s.Diskless):
		return bad("LayerMiB", s.LayerMiB, "needs Image")
	case s.LayerInMemory && (s.Rootfs != "" || s.Diskless):
		return bad("LayerInMemory", s.LayerInMemory, "needs Image")
	case s.LayerInMemory && s.LayerMiB != 0:
		return bad("LayerInMemory", s.LayerInMemory, "can't be set together with LayerMiB")
	}
	return nil
}

func (s *Spec) checkArgs() *FieldError {
	if len(s.KernelArgs) > maxKernelArgs {
		return bad("KernelArgs", s.KernelArgs, fmt.Sprintf("must be at most %d bytes", maxKernelArgs))
	}
	if strings.IndexFunc(s.KernelArgs, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
		return bad("KernelArgs", s.KernelArgs, "must be printable ASCII on one line")
	}
	return nil
}

func (s *Spec) checkLabels() *FieldError { return checkLabels("Spec.Labels", s.Labels) }

func checkLabels(field string, labels map[string]string) *FieldError {
	if len(labels) > maxLabels {
		return &FieldError{Field: field, Value: len(labels), Reason: fmt.Sprintf("must be at most %d", maxLabels)}
	}
	for key, value := range labels {
		if key == "" || len(key) > maxLabelKey || strings.IndexFunc(key, func(r rune) bool { return !nameRune(r) && r != '/' }) >= 0 {
			return &FieldError{Field: field, Value: key, Reason: labelKeyRule}
		}
		unprintable := strings.IndexFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0
		if len(value) > maxLabelValue || !utf8.ValidString(value) || unprintable {
			return &FieldError{Field: field, Value: value, Reason: labelValueRule}
		}
	}
	return nil
}

func bad(field string, value any, reason string) *FieldError {
	return &FieldError{Field: "Spec." + field, Value: value, Reason: reason}
}
