package wire

import (
	"strings"
	"time"
	"unicode/utf8"
)

// Paths of what a guest tells of its own accord. On both the agent alone speaks: frames Event, and DataEnd where there is no more to tell.
const (
	PathFilesWatch = "/v1/files/watch" // FilesWatch, Upgrade. The first Event is FileWatching, when the watch is in place.
	PathEvents     = "/v1/events"      // Subscribe, Upgrade.
)

// Features of this file.
const (
	FeatureWatch  = "watch"  // POST PathFilesWatch and the frame Event.
	FeatureEvents = "events" // POST PathEvents and the frame Event.
)

// Bounds of what is told.
const (
	MaxWatches  = 64  // Connections on which an agent tells at once, of files and of the system.
	MaxKept     = 256 // Events of the system that an agent keeps.
	maxFileName = 255 // Bytes of a name in a directory (NAME_MAX).
)

// FilesWatch is the body of POST PathFilesWatch.
type FilesWatch struct {
	Path string `json:"path"` // Absolute; symbolic links are followed. It must be there, unless File is set.
	File bool   `json:"file,omitempty"`
}

// FileEvent is the payload of a frame Event that tells of a file, in JSON.
type FileEvent struct {
	Kind string `json:"kind"`           // One of those below.
	Name string `json:"name,omitempty"` // In the directory. Empty for the directory itself, and for a name that is not UTF-8.
	From string `json:"from,omitempty"` // The name before, of FileRenamed.
	Dir  bool   `json:"dir,omitempty"`  // It is a directory.
	Self bool   `json:"self,omitempty"` // It is the watched directory itself.
}

// Kinds of a FileEvent.
const (
	FileWatching   = "watching" // The watch is in place; Dir says what is watched.
	FileCreated    = "created"
	FileWritten    = "written" // It was closed by who had it open for writing.
	FileRemoved    = "removed"
	FileRenamed    = "renamed" // Without From it came from another directory, without Name it went to one.
	FileAttributes = "attributes"
	FileLost       = "lost" // More happened than was kept.
)

// ValidFileName says whether a name is one in a directory, in UTF-8.
func ValidFileName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= maxFileName && utf8.ValidString(name) && !strings.ContainsAny(name, "/\x00")
}

// Subscribe is the body of POST PathEvents.
type Subscribe struct {
	Boot  string `json:"boot,omitempty"`  // Event.Boot of the last event that the host has. Of another agent's nothing is known: all that is kept comes.
	After uint64 `json:"after,omitempty"` // Its Event.Seq: what comes begins behind it, or with the oldest that is kept.
}

// SystemEvent is the payload of a frame Event that tells of the system, in JSON.
type SystemEvent struct {
	Boot string        `json:"boot"`  // Of the agent's choice, another at each start: a ValidID.
	Seq  uint64        `json:"seq"`   // From 1, one more each time.
	Time time.Duration `json:"at_ns"` // CLOCK_BOOTTIME.
	Kind string        `json:"kind"`  // One of those below.
	OOM  *OOMKill      `json:"oom,omitempty"`
	Disk *Disk         `json:"disk,omitempty"`
}

// Kinds of a SystemEvent.
const (
	EventOOMKill  = "oom_kill"  // The kernel killed a process for want of memory.
	EventDiskLow  = "disk_low"  // A file system has little room,
	EventDiskFull = "disk_full" // or none,
	EventDiskOK   = "disk_ok"   // or enough again.
)

// OOMKill says whom the kernel killed. All of it is empty where its log did not tell.
type OOMKill struct {
	PID    int    `json:"pid,omitempty"`
	Name   string `json:"name,omitempty"`
	Cgroup string `json:"cgroup,omitempty"`
}

// Disk is how much room a file system has.
type Disk struct {
	Path      string `json:"path"`
	Free      int64  `json:"free"` // Bytes, for who is not root.
	Size      int64  `json:"size"`
	FilesFree int64  `json:"files_free"` // Both are 0 where nothing bounds them.
	Files     int64  `json:"files"`
}
