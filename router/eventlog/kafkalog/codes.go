package kafkalog

import (
	kafka "github.com/segmentio/kafka-go"
)

// Error codes of the protocol that decide something here. See https://kafka.apache.org/protocol#protocol_error_codes
const (
	codeOutOfRange        = int16(kafka.OffsetOutOfRange)
	codeCorrupt           = int16(kafka.InvalidMessage)
	codeUnknownTopic      = int16(kafka.UnknownTopicOrPartition)
	codeLeaderMissing     = int16(kafka.LeaderNotAvailable)
	codeTooLarge          = int16(kafka.MessageSizeTooLarge)
	codeInvalidTopic      = int16(kafka.InvalidTopic)
	codeBatchTooLarge     = int16(kafka.RecordListTooLarge)
	codeFewReplicas       = int16(kafka.NotEnoughReplicas)
	codeTopicDenied       = int16(kafka.TopicAuthorizationFailed)
	codeGroupDenied       = int16(kafka.GroupAuthorizationFailed)
	codeClusterDenied     = int16(kafka.ClusterAuthorizationFailed)
	codeInvalidTimestamp  = int16(kafka.InvalidTimestamp)
	codeTopicExists       = int16(kafka.TopicAlreadyExists)
	codeUnsupported       = int16(kafka.UnsupportedVersion)
	codeBadPartitions     = int16(kafka.InvalidPartitionNumber)
	codeBadReplication    = int16(kafka.InvalidReplicationFactor)
	codeBadConfig         = int16(kafka.InvalidConfiguration)
	codeBadRequest        = int16(kafka.InvalidRequest)
	codeNoGroup           = int16(kafka.GroupIdNotFound)
	codePolicy            = int16(kafka.PolicyViolation)
	codeOutOfOrder        = int16(kafka.OutOfOrderSequenceNumber)
	codeDuplicateSequence = int16(kafka.DuplicateSequenceNumber)
	codeProducerEpoch     = int16(kafka.InvalidProducerEpoch)
	codeProducerMapping   = int16(kafka.InvalidProducerIDMapping)
	codeUnknownProducer   = int16(kafka.UnknownProducerId)
	codeInvalidRecord     = int16(87) // INVALID_RECORD, which kafka-go 0.4.51 does not name
)

// surelyNotWritten reports the answers to a produce request after which this try has written nothing, in no log. Others,
// NOT_LEADER and REQUEST_TIMED_OUT among them, may come when the leader has already written it and others may have copied it.
func surelyNotWritten(code int16) bool {
	switch code {
	case codeCorrupt, codeUnknownTopic, codeLeaderMissing, codeTooLarge, codeInvalidTopic, codeBatchTooLarge, codeFewReplicas,
		codeTopicDenied, codeClusterDenied, codeInvalidTimestamp, codeUnsupported, codeInvalidRecord:
		return true
	}
	return lostSequence(code)
}

// lostSequence reports the answers after which the broker will not take this producer's sequence on: it knows another past of
// this producer than we do, because records or the memory of them were lost. This try has written nothing.
func lostSequence(code int16) bool {
	switch code {
	case codeOutOfOrder, codeProducerEpoch, codeProducerMapping, codeUnknownProducer:
		return true
	}
	return false
}

func tooLarge(code int16) bool { return code == codeTooLarge || code == codeBatchTooLarge }

// final reports the answers that trying again will not change.
func final(code int16) bool {
	switch code {
	case codeInvalidTopic, codeTopicDenied, codeGroupDenied, codeClusterDenied, codeInvalidTimestamp, codeUnsupported,
		codeInvalidRecord, codeBadPartitions, codeBadReplication, codeBadConfig, codeBadRequest, codePolicy:
		return true
	}
	return tooLarge(code)
}
